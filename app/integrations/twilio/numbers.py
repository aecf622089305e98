"""Where Twilio posts the texts that come in: at a phone number, or at a Messaging Service.

Owns the calls to those two resources (Twilio docs, "IncomingPhoneNumber resource", "Services resource"), each
once and in a bounded time. Changes only what it is given; knows not what it should be.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import requests
from twilio.base.exceptions import TwilioException
from twilio.rest import Client

from app.integrations.breaker import TWILIO_SMS, protected
from app.integrations.http_errors import sort_failure
from app.integrations.twilio.client import Clients
from app.integrations.twilio.credentials import TwilioCredentials
from app.integrations.twilio.failures import sort_error
from app.integrations.twilio.messages import FULL_TIMEOUT_SECONDS

# Twilio by itself repeats a webhook once, and only when it could not connect (Twilio docs, "Connection
# overrides"). The fragment is neither sent nor signed.
RETRIES = "#rc=3&rp=5xx,ct,rt"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class NumberSettings:
    """A number's. An ``application_sid`` outranks the URL."""

    sid: str
    url: str
    method: str
    application_sid: str


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """A Messaging Service's. With ``defers_to_number`` its numbers' URLs are used, and not its own."""

    url: str
    method: str
    status_callback: str
    defers_to_number: bool


class TwilioNumbers:
    """Numbers and Messaging Services of whatever account the credentials name. Thread-safe.

    Every method raises CircuitOpen, ProviderUnavailable, ProviderThrottled, CredentialsRefused or
    ProviderRefused (ResourceGone when the account has no such service). All are safe to repeat.
    """

    def __init__(self, base_url: str) -> None:
        self._clients = Clients(base_url.rstrip("/"))

    def find_number(self, credentials: TwilioCredentials, number: str) -> NumberSettings | None:
        """The number's settings (E.164); None when it is not this account's."""

        def find(client: Client) -> NumberSettings | None:
            found = client.incoming_phone_numbers.list(phone_number=number, limit=1)
            if not found:
                return None
            one = found[0]
            return NumberSettings(one.sid, one.sms_url or "", one.sms_method or "", one.sms_application_sid or "")

        return self._call(credentials, find)

    def set_number(self, credentials: TwilioCredentials, sid: str, *, url: str) -> None:
        """Let the number's texts be posted to ``url``, by nobody's application."""

        def update(client: Client) -> None:
            client.incoming_phone_numbers(sid).update(sms_url=url, sms_method="POST", sms_application_sid="")

        self._call(credentials, update)

    def fetch_service(self, credentials: TwilioCredentials, sid: str) -> ServiceSettings:
        """The Messaging Service's settings."""

        def fetch(client: Client) -> ServiceSettings:
            one = client.messaging.v1.services(sid).fetch()
            return ServiceSettings(
                one.inbound_request_url or "",
                one.inbound_method or "",
                one.status_callback or "",
                bool(one.use_inbound_webhook_on_number),
            )

        return self._call(credentials, fetch)

    def set_service(self, credentials: TwilioCredentials, sid: str, *, url: str, status_callback: str) -> None:
        """Let the service's texts be posted to ``url``, and news of texts to ``status_callback``."""

        def update(client: Client) -> None:
            client.messaging.v1.services(sid).update(
                inbound_request_url=url,
                inbound_method="POST",
                status_callback=status_callback,
                use_inbound_webhook_on_number=False,
            )

        self._call(credentials, update)

    def _call(self, credentials: TwilioCredentials, action: Callable[[Client], T]) -> T:
        def bounded() -> T:
            client, wire = self._clients.get(credentials, timeout_seconds=FULL_TIMEOUT_SECONDS)
            try:
                return action(client)
            except TwilioException as error:
                raise sort_error(error, wire) from None
            except requests.RequestException as error:
                raise sort_failure("Twilio", error, at_full_limit=True) from None

        return protected(TWILIO_SMS)(bounded)()
