"""Texts out, through Twilio's own library: with a timeout always, behind the circuit of the channel.

Owns the wire; what is sent once, and what an unknown fate means, is the service's.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import requests
from twilio.base.exceptions import TwilioException, TwilioRestException, TwilioServiceException
from twilio.http.http_client import TwilioHttpClient
from twilio.http.response import Response
from twilio.rest import Client

from app.errors import ProviderUnavailable
from app.integrations.breaker import TWILIO_SMS, TWILIO_WHATSAPP, protected
from app.integrations.twilio.credentials import TwilioCredentials
from app.integrations.twilio.failures import sort_refusal, sort_transport

TWILIO = "https://api.twilio.com"
TIMEOUT_SECONDS = 10.0
MOST_CLIENTS = 200
MOST_LISTED = 50


@dataclass(frozen=True, slots=True)
class SentMessage:
    """A text as Twilio knows it. ``sender`` is None until Twilio has chosen one of a Messaging Service."""

    sid: str
    status: str
    to: str
    sender: str | None
    body: str
    created_at: datetime | None


class _Wire(TwilioHttpClient):  # type: ignore[misc]  # the library has no types
    """The library's HTTP client, aimed at the configured base URL, with a limit for each request."""

    def __init__(self, base_url: str) -> None:
        super().__init__(timeout=TIMEOUT_SECONDS)
        self._base_url = base_url
        self.seconds = TIMEOUT_SECONDS

    def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> Response:
        # the library logs the URL and the parameters of a request when asked to; nothing here does
        kwargs["timeout"] = self.seconds
        return super().request(method, url.replace(TWILIO, self._base_url, 1), *args, **kwargs)


class TwilioMessages:
    """Sends and looks up texts for any account. Thread-safe: each thread has clients of its own."""

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url
        self._local = threading.local()

    def send(
        self,
        credentials: TwilioCredentials,
        *,
        channel: str,
        to: str,
        body: str,
        status_callback: str | None,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> SentMessage:
        """Hand one text to Twilio, which knows no idempotency key: never call it twice without looking.

        Raises ProviderUnavailable (``maybe_done`` says whether it may have been taken), ProviderThrottled,
        CircuitOpen, RecipientOptedOut, CredentialsRefused, ProviderRefused.
        """
        post = self._send_whatsapp if channel == "whatsapp" else self._send_sms
        callback = {"status_callback": status_callback} if status_callback else {}
        return post(credentials, timeout_seconds, {"to": to, "body": body, **callback, **credentials.sender(channel)})

    @protected(TWILIO_SMS)
    def _send_sms(self, credentials: TwilioCredentials, seconds: float, fields: dict[str, str]) -> SentMessage:
        return self._post(credentials, seconds, fields)

    @protected(TWILIO_WHATSAPP)
    def _send_whatsapp(self, credentials: TwilioCredentials, seconds: float, fields: dict[str, str]) -> SentMessage:
        return self._post(credentials, seconds, {**fields, "to": f"whatsapp:{fields['to']}"})

    def _post(self, credentials: TwilioCredentials, seconds: float, fields: dict[str, str]) -> SentMessage:
        with self._client(credentials, seconds) as client:
            return _sent(client.messages.create(**fields))

    def list_sent(
        self,
        credentials: TwilioCredentials,
        *,
        to: str,
        channel: str,
        since: datetime,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> list[SentMessage]:
        """Texts to this address that were made since then, the newest first, at most fifty.

        By recipient alone: sender and send date are empty until Twilio has sent it.
        """
        look = self._list_whatsapp if channel == "whatsapp" else self._list_sms
        address = f"whatsapp:{to}" if channel == "whatsapp" else to
        found = look(credentials, timeout_seconds, address)
        return [message for message in found if message.created_at is None or message.created_at >= since]

    @protected(TWILIO_SMS)
    def _list_sms(self, credentials: TwilioCredentials, seconds: float, to: str) -> list[SentMessage]:
        return self._list(credentials, seconds, to)

    @protected(TWILIO_WHATSAPP)
    def _list_whatsapp(self, credentials: TwilioCredentials, seconds: float, to: str) -> list[SentMessage]:
        return self._list(credentials, seconds, to)

    def _list(self, credentials: TwilioCredentials, seconds: float, to: str) -> list[SentMessage]:
        with self._client(credentials, seconds) as client:
            rows = client.messages.list(to=to, limit=MOST_LISTED, page_size=MOST_LISTED)
            return [_sent(row) for row in rows if str(row.direction).startswith("outbound")]

    @protected(TWILIO_SMS)
    def fetch(
        self, credentials: TwilioCredentials, sid: str, *, timeout_seconds: float = TIMEOUT_SECONDS
    ) -> SentMessage:
        """One text by its SID; raises ResourceGone when Twilio does not know it."""
        with self._client(credentials, timeout_seconds) as client:
            return _sent(client.messages(sid).fetch())

    @protected(TWILIO_SMS)
    def check_account(self, credentials: TwilioCredentials, *, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        """Whether the account answers to these credentials; raises CredentialsRefused."""
        with self._client(credentials, timeout_seconds) as client:
            client.api.v2010.accounts(credentials.account_sid).fetch()

    @contextmanager
    def _client(self, credentials: TwilioCredentials, seconds: float) -> Iterator[Client]:
        """This thread's client of the account; the library's and the transport's errors become ours."""
        client = self._own_client(credentials)
        client.http_client.seconds = seconds
        try:
            yield client
        except (TwilioRestException, TwilioServiceException) as error:
            raise sort_refusal(error.status, error.code) from None
        except requests.RequestException as error:
            raise sort_transport(error) from None
        except TwilioException:
            raise ProviderUnavailable("Twilio's answer cannot be understood") from None

    def _own_client(self, credentials: TwilioCredentials) -> Client:
        if getattr(self._local, "pid", None) != os.getpid():  # a forked child must not share connections
            self._local.clients, self._local.pid = OrderedDict(), os.getpid()
        clients: OrderedDict[TwilioCredentials, Client] = self._local.clients
        if credentials not in clients:
            user = credentials.api_key_sid or credentials.account_sid
            secret = credentials.api_key_secret or credentials.auth_token
            clients[credentials] = Client(
                user, secret.get_secret_value(), credentials.account_sid, http_client=_Wire(self._base_url)
            )
            while len(clients) > MOST_CLIENTS:
                clients.popitem(last=False)
        clients.move_to_end(credentials)
        return clients[credentials]


def _sent(message: Any) -> SentMessage:
    created: datetime | None = message.date_created
    return SentMessage(
        sid=str(message.sid),
        status=str(message.status or ""),
        to=str(message.to or ""),
        sender=str(message.from_).removeprefix("whatsapp:") if message.from_ else None,
        body=str(message.body or ""),
        created_at=created.astimezone(UTC) if created is not None else None,
    )
