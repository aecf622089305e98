"""One request to Vapi's REST interface and one sorted answer.

Owns the connection, its time limits and the sorting of failures into ``app.errors``. Knows no
operation, and never puts Vapi's own words into an error: they may repeat what was sent.
"""

from __future__ import annotations

import os
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, cast

import requests
from requests.auth import AuthBase
from urllib3.exceptions import ConnectTimeoutError, HTTPError, ReadTimeoutError
from urllib3.util import Timeout

from app.errors import (
    ConfigurationError,
    CredentialsRefused,
    DeadlineExceeded,
    ProviderRefused,
    ProviderThrottled,
    ProviderUnavailable,
    ResourceGone,
    VoicedeskError,
)
from app.integrations.vapi.reading import read_json

FULL_TIMEOUT_SECONDS = 10.0
# A try shorter than this ran out because its caller had no time, which says nothing about Vapi.
SHORT_TIMEOUT_SECONDS = 2.0
MOST_BYTES = 20_000_000
_CHUNK = 65_536


class _Bearer(AuthBase):
    """Sets the header itself, so that a netrc file on the machine cannot replace it."""

    def __init__(self, private_key: str) -> None:
        if not private_key.strip().isprintable():
            raise ConfigurationError("Vapi's private key contains characters that no header can carry")
        self._header = f"Bearer {private_key.strip()}".encode().decode("latin-1")

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = self._header
        return request


class Wire:
    """Requests under one base URL and one private key. Thread-safe: every thread has its own session."""

    def __init__(self, base_url: str, private_key: str) -> None:
        self._base_url = base_url.rstrip("/")
        self._auth = _Bearer(private_key)
        self._local = threading.local()

    def ask(
        self,
        method: str,
        path: str,
        *,
        timeout_seconds: float,
        query: dict[str, str] | None = None,
        body: dict[str, Any] | None = None,
    ) -> Any:
        """The JSON Vapi answers with, all of it within ``timeout_seconds``.

        Raises CredentialsRefused (401), ResourceGone (404), ProviderThrottled (429), ProviderRefused
        (other 4xx), ProviderUnavailable (5xx, no answer, no JSON) and, for a time-out of less than
        2 s, DeadlineExceeded. Only a POST may have been done when it fails.
        """
        writes = method == "POST"
        ends = time.monotonic() + timeout_seconds
        try:
            with self._session().request(
                method,
                self._base_url + path,
                params=query,
                json=body,
                auth=self._auth,
                timeout=cast(Any, Timeout(total=timeout_seconds)),  # requests passes it on; its stubs lag
                allow_redirects=False,
                stream=True,
            ) as response:
                content = _read(response, ends)
        except (requests.RequestException, HTTPError) as error:
            maybe_done = writes and not _never_sent(error)
            if _timed_out(error):
                raise _too_slow(timeout_seconds, maybe_done=maybe_done) from None
            raise ProviderUnavailable("Vapi cannot be reached", maybe_done=maybe_done) from None
        except _OutOfTime:
            raise _too_slow(timeout_seconds, maybe_done=writes) from None
        if response.status_code not in (200, 201):
            raise sort_failure(response.status_code, response.headers.get("Retry-After"), writes=writes)
        try:
            return read_json(content)
        except ValueError:
            raise ProviderUnavailable("Vapi's answer is not JSON", maybe_done=writes) from None

    def _session(self) -> requests.Session:
        """This thread's session; a forked child must not share its parent's connections."""
        if getattr(self._local, "pid", None) != os.getpid():
            self._local.session, self._local.pid = requests.Session(), os.getpid()
        session: requests.Session = self._local.session
        return session


def sort_failure(status: int, retry_after: str | None, *, writes: bool) -> VoicedeskError:
    """What an HTTP status other than success means, as an error to raise."""
    if status == 401:
        return CredentialsRefused("Vapi refused the private key", provider_code="401")
    if status == 404:
        return ResourceGone("Vapi does not know this", provider_code="404")
    if status == 429:
        return ProviderThrottled("Vapi asks to slow down", retry_after=parse_retry_after(retry_after))
    if 400 <= status < 500 and status != 408:
        return ProviderRefused("Vapi refused the request", provider_code=str(status))
    return ProviderUnavailable(
        "Vapi answered with an error of its own", maybe_done=writes, retry_after=parse_retry_after(retry_after)
    )


def parse_retry_after(value: str | None) -> timedelta | None:
    """``Retry-After`` in either of its forms, seconds or a date (RFC 9110); None for anything else."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return timedelta(seconds=min(int(value), 86_400))
    try:
        wait = parsedate_to_datetime(value).astimezone(UTC) - datetime.now(UTC)
    except (ValueError, OverflowError):
        return None
    return min(max(wait, timedelta(0)), timedelta(days=1))


class _OutOfTime(Exception):
    """The answer came too slowly, or would not end."""


def _read(response: requests.Response, ends: float) -> bytes:
    """The whole answer, in time: ``requests`` bounds each read and not their sum, which a trickle outlives."""
    content = bytearray()
    sock = getattr(response.raw.connection, "sock", None)
    while (left := ends - time.monotonic()) > 0 and len(content) <= MOST_BYTES:
        if sock is not None:
            sock.settimeout(left)
        chunk = response.raw.read1(_CHUNK, decode_content=True)
        if not chunk:
            return bytes(content)
        content += chunk
    raise _OutOfTime


def _too_slow(timeout_seconds: float, *, maybe_done: bool) -> DeadlineExceeded | ProviderUnavailable:
    if timeout_seconds < SHORT_TIMEOUT_SECONDS:
        return DeadlineExceeded("the time for asking Vapi ran out", maybe_done=maybe_done)
    return ProviderUnavailable("Vapi did not answer in time", maybe_done=maybe_done)


def _never_sent(error: Exception) -> bool:
    """Whether no connection came about at all, so that certainly nothing was done."""
    return isinstance(error, requests.ConnectTimeout) or isinstance(_cause(error), ConnectTimeoutError)


def _timed_out(error: Exception) -> bool:
    """Whether time ran out, be it in ``requests`` or, while the body is read, in urllib3 beneath it."""
    return isinstance(error, requests.Timeout | ReadTimeoutError)


def _cause(error: Exception) -> object:
    """urllib3's own error inside one of ``requests``."""
    inner = error.args[0] if error.args else None
    return getattr(inner, "reason", inner)
