"""Twilio's own client, tamed: a base URL that can be changed, a time limit always, few connections.

Owns how requests leave for Twilio. One client per thread and account, because the limit of the
call under way is kept in it; a bounded number, because organizations come and go. A thread's accounts share its
connections: who is asking is said with each request, and a new TLS connection per text would cost more than the text.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from typing import Any

import orjson
from twilio.http.http_client import TwilioHttpClient
from twilio.http.response import Response
from twilio.rest import Client

from app.errors import ProviderUnavailable
from app.integrations.http_errors import BoundedAdapter
from app.integrations.twilio.credentials import TwilioCredentials

TWILIO_URL = "https://api.twilio.com"
MESSAGING_URL = "https://messaging.twilio.com"
HOSTS = 2  # those two
CLIENTS_PER_THREAD = 16


class Wire(TwilioHttpClient):  # type: ignore[misc]  # the library has no types
    """Sends to ``base_url`` what is meant for Twilio's hosts; remembers the last answer's status and headers."""

    def __init__(self, base_url: str, connections: BoundedAdapter) -> None:
        super().__init__()
        self.base_url = base_url
        self.status = 0
        self.headers: dict[str, str] = {}
        assert self.session is not None
        for scheme in ("https://", "http://"):
            self.session.mount(scheme, connections)

    def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> Response:
        """Send one request. Raises requests' exceptions, and ProviderUnavailable for a success that is no JSON object.

        Whoever answered 2xx with something else was not Twilio's API (a proxy, a portal), or was cut short.
        """
        self.status, self.headers = 0, {}
        response = super().request(method, self._address(url), *args, **kwargs)
        self.status = response.status_code
        self.headers = {name.lower(): value for name, value in (response.headers or {}).items()}
        if response.ok and not _is_object(response.text):
            raise ProviderUnavailable("Twilio's answer cannot be understood")
        return response

    def _address(self, url: str) -> str:
        """Services are on a host of their own; of a stand-in all are behind one address."""
        if self.base_url == TWILIO_URL:
            return url
        for host in (TWILIO_URL, MESSAGING_URL):
            url = url.removeprefix(host)
        return self.base_url + url


class Clients(threading.local):
    """This thread's clients, the least recently used dropped first, and their connections; made anew after a fork."""

    def __init__(self, base_url: str) -> None:
        super().__init__()
        self._base_url = base_url
        self._begin_anew()

    def get(self, credentials: TwilioCredentials, *, timeout_seconds: float) -> tuple[Client, Wire]:
        """The account's client, whose next calls may take ``timeout_seconds`` each, and its wire."""
        if self._pid != os.getpid():  # a connection shared with the parent would mix up their answers
            self._begin_anew()
        found = self._known.pop(credentials, None) or self._make(credentials)
        self._known[credentials] = found
        if len(self._known) > CLIENTS_PER_THREAD:
            self._known.popitem(last=False)
        found[1].timeout = timeout_seconds
        return found

    def _begin_anew(self) -> None:
        self._pid = os.getpid()
        self._connections = BoundedAdapter(pool_connections=HOSTS, pool_maxsize=1)
        self._known: OrderedDict[TwilioCredentials, tuple[Client, Wire]] = OrderedDict()

    def _make(self, credentials: TwilioCredentials) -> tuple[Client, Wire]:
        wire = Wire(self._base_url, self._connections)
        secret = credentials.api_key_secret or credentials.auth_token
        client = Client(
            username=credentials.api_key_sid or credentials.account_sid,
            password=secret.get_secret_value(),
            account_sid=credentials.account_sid,
            http_client=wire,
        )
        return client, wire


def _is_object(text: str) -> bool:
    try:
        return isinstance(orjson.loads(text), dict)
    except orjson.JSONDecodeError:
        return False
