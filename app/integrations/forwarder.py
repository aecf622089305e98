"""One POST to a target that an organization has named: over in time, followed nowhere, its answer read in part.

Owns the connection: the target's name is looked up once, the addresses are checked, and one of those is connected
to, so that a name that changes in between (DNS rebinding) leads nowhere else. Knows no event and no organization.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property

from requests.utils import DEFAULT_CA_BUNDLE_PATH

from app.errors import ProviderUnavailable
from app.integrations.http_errors import parse_retry_after
from app.integrations.target_circuits import target_circuits
from app.integrations.targets import Target, find_addresses, read_url

TIMEOUT_SECONDS = 10.0  # below circuit_state.PROBE_SECONDS
LOOK_UP_SECONDS = 3.0
MOST_ANSWER_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Answer:
    """What the target said: anything below 500."""

    status: int
    retry_after: timedelta | None = None


class Forwarder:
    """Sends. Thread-safe; each request has a connection of its own."""

    def __init__(self, *, private_allowed: bool, plain_allowed: bool, ca_file: str | None = None) -> None:
        self._private_allowed = private_allowed
        self._plain_allowed = plain_allowed
        self._ca_file = ca_file

    def check(self, url: str) -> Target:
        """Raise InvalidInput, TargetNotAllowed or ProviderUnavailable for what nothing could be sent to."""
        target = read_url(url, plain_allowed=self._plain_allowed)
        find_addresses(target, private_allowed=self._private_allowed, seconds=LOOK_UP_SECONDS)
        return target

    def post(self, circuit: str, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Send it once, behind the target's circuit.

        Raises InvalidInput, TargetNotAllowed, CircuitOpen, and ProviderUnavailable for no answer in time and 5xx.
        """
        return target_circuits.get(circuit).guard(self._post, url, headers, body)

    def _post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        ends = time.monotonic() + TIMEOUT_SECONDS
        target = read_url(url, plain_allowed=self._plain_allowed)
        addresses = find_addresses(target, private_allowed=self._private_allowed, seconds=LOOK_UP_SECONDS)
        connected = self._connect(target, addresses, ends)
        with connected, _cut_off_at(connected, ends):
            return _ask(target, connected, headers, body, ends)

    def _connect(self, target: Target, addresses: list[str], ends: float) -> socket.socket:
        """To the first checked address that answers, encrypted and its certificate checked for the name."""
        fault = "the target cannot be reached"
        for place, address in enumerate(addresses):
            share = (ends - time.monotonic()) / (len(addresses) - place)
            if share <= 0:
                break
            try:
                plain = _dial(address, target.port, share)
            except OSError:
                continue
            try:
                plain.settimeout(max(0.1, ends - time.monotonic()))
                return self._tls.wrap_socket(plain, server_hostname=target.host) if target.encrypted else plain
            except (OSError, ValueError) as error:
                plain.close()
                certificate = isinstance(error, ssl.SSLCertVerificationError)
                fault = "the target's certificate is not good" if certificate else fault
        raise ProviderUnavailable(fault, maybe_done=False)

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self._ca_file or DEFAULT_CA_BUNDLE_PATH)


def _dial(address: str, port: int, seconds: float) -> socket.socket:
    """Connect to the address itself: nothing is looked up any more."""
    plain = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        plain.settimeout(seconds)
        plain.connect((address, port))
    except OSError:
        plain.close()
        raise
    return plain


def _ask(target: Target, connected: socket.socket, headers: Mapping[str, str], body: bytes, ends: float) -> Answer:
    connection = http.client.HTTPConnection(target.host, target.port)
    connection.sock = connected
    sent = {**headers, "Host": target.authority, "Content-Length": str(len(body)), "Connection": "close"}
    try:
        connection.request("POST", target.path, body=body, headers=sent)
        response = connection.getresponse()
        status, wish = response.status, parse_retry_after(response.headers.get("Retry-After"))
        if time.monotonic() >= ends:
            raise TimeoutError  # cut off among the headers, which the library takes for their end
    except (OSError, http.client.HTTPException, ValueError):
        raise ProviderUnavailable("the target did not answer in time, or broke off") from None
    with suppress(OSError, http.client.HTTPException, ValueError):  # what it says besides is of no use, nor its end
        response.read(MOST_ANSWER_BYTES)
    if status >= 500:
        raise ProviderUnavailable("the target failed", retry_after=wish)
    return Answer(status, wish)


@contextmanager
def _cut_off_at(connected: socket.socket, ends: float) -> Iterator[None]:
    """A time limit of a socket is one for each wait: an answer that trickles in would outlive it for ever."""
    timer = threading.Timer(max(0.0, ends - time.monotonic()), _shut, (connected,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _shut(connected: socket.socket) -> None:
    try:
        socket.socket.shutdown(connected, socket.SHUT_RDWR)
    except OSError:
        return  # it has ended by itself
