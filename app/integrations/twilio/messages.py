"""Sending texts by Twilio, and finding out what became of them.

Owns the calls to the Messages resource (Twilio docs, "Message resource"), each once, in a bounded time
and under the circuit of its channel. Twilio has no idempotency key for a text: whoever repeats a send that
may have been done sends it twice; the failure says so (``maybe_done``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, TypeVar

import orjson
import requests
from twilio.base import values
from twilio.base.exceptions import TwilioException
from twilio.rest import Client
from twilio.rest.api.v2010.account.message import MessageInstance

from app.errors import InvalidInput, ProviderUnavailable
from app.integrations.breaker import TWILIO_SMS, TWILIO_WHATSAPP, protected
from app.integrations.http_errors import sort_failure
from app.integrations.twilio.addresses import SMS, WHATSAPP, with_channel, without_channel
from app.integrations.twilio.client import Clients
from app.integrations.twilio.credentials import TwilioCredentials
from app.integrations.twilio.failures import sort_error
from app.integrations.twilio.reconciling import ListedText, as_listed

FULL_TIMEOUT_SECONDS = 10.0  # a call that had so long and got no answer speaks against Twilio
MOST_LISTED = 100
LARGEST_PAGE = 500

Channel = Literal["sms", "whatsapp"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SentMessage:
    """A text as Twilio knows it. Addresses have no prefix; ``sender`` is None until a Messaging Service chose one.

    ``created_at`` has whole seconds, by Twilio's clock.
    """

    sid: str
    status: str
    to: str
    sender: str | None
    body: str
    created_at: datetime | None
    error_code: str | None = None


@dataclass(frozen=True, slots=True)
class Approved:
    """A template that WhatsApp has approved (Twilio docs, "Content API"), and the values of its variables 1, 2, ..."""

    content_sid: str
    variables: Sequence[str]


class TwilioMessages:
    """Texts through whatever account the credentials name. Thread-safe.

    Every method raises CircuitOpen, ProviderUnavailable, ProviderThrottled, DeadlineExceeded (when it
    was given less than the full time and that ran out), CredentialsRefused or ProviderRefused.
    """

    def __init__(self, base_url: str) -> None:
        self._clients = Clients(base_url.rstrip("/"))

    def send(
        self,
        credentials: TwilioCredentials,
        *,
        channel: str,
        to: str,
        body: str,
        status_callback: str | None,
        approved: Approved | None = None,
        timeout_seconds: float = FULL_TIMEOUT_SECONDS,
    ) -> SentMessage:
        """Send one text, once; ``to`` with or without a channel's prefix. ``approved`` goes instead of the body.

        Raises RecipientOptedOut when Twilio blocks the recipient (21610), InvalidInput when the
        credentials name no sender for the channel.
        """
        sender = _sender(credentials, channel)

        def create(client: Client) -> SentMessage:
            message = client.messages.create(
                to=with_channel(channel, to),
                **_content(body, approved),
                status_callback=values.unset if status_callback is None else status_callback,
                **sender,
            )
            return _told(message)

        return self._call(channel, credentials, create, timeout_seconds)

    def list_sent(
        self,
        credentials: TwilioCredentials,
        *,
        to: str,
        channel: str,
        since: datetime,
        timeout_seconds: float = FULL_TIMEOUT_SECONDS,
    ) -> list[SentMessage]:
        """The texts to this address that Twilio created at or after ``since``, the newest first, at most 100.

        Twilio's own filter is by the date of sending, which a text does not have until it is sent;
        and its list may lag behind. Allow for a difference between the clocks in ``since``.
        """

        def find(client: Client) -> list[SentMessage]:
            listed = client.messages.list(to=with_channel(channel, to), limit=MOST_LISTED, page_size=MOST_LISTED)
            ours = [_told(message) for message in listed if str(message.direction).startswith("outbound")]
            start = since.astimezone(UTC).replace(microsecond=0)
            return [message for message in ours if message.created_at is None or message.created_at >= start]

        return self._call(channel, credentials, find, timeout_seconds)

    def list_between(
        self,
        credentials: TwilioCredentials,
        *,
        since: datetime,
        until: datetime,
        most: int,
        timeout_seconds: float = FULL_TIMEOUT_SECONDS,
    ) -> list[ListedText]:
        """The account's texts, both ways, that were sent in this time, the newest first, at most ``most``.

        ``timeout_seconds`` is each page's. The circuit is that of SMS: it is one list of both channels.
        """

        def find(client: Client) -> list[ListedText]:
            listed = client.messages.list(
                date_sent_after=since.astimezone(UTC),
                date_sent_before=until.astimezone(UTC),
                limit=most,
                page_size=min(most, LARGEST_PAGE),
            )
            return [as_listed(message) for message in listed if message.sid]

        return self._call(SMS, credentials, find, timeout_seconds)

    def fetch(
        self,
        credentials: TwilioCredentials,
        sid: str,
        *,
        channel: str = SMS,
        timeout_seconds: float = FULL_TIMEOUT_SECONDS,
    ) -> SentMessage:
        """One text by its SID; raises ResourceGone when this account has none."""
        return self._call(channel, credentials, lambda client: _told(client.messages(sid).fetch()), timeout_seconds)

    def check_account(self, credentials: TwilioCredentials, *, timeout_seconds: float = FULL_TIMEOUT_SECONDS) -> None:
        """Return when Twilio accepts the credentials; raises CredentialsRefused when it does not."""
        sid = credentials.account_sid
        self._call(SMS, credentials, lambda client: client.api.accounts(sid).fetch(), timeout_seconds)

    def _call(
        self, channel: str, credentials: TwilioCredentials, action: Callable[[Client], T], timeout_seconds: float
    ) -> T:
        def bounded() -> T:
            client, wire = self._clients.get(credentials, timeout_seconds=timeout_seconds)
            try:
                return action(client)
            except TwilioException as error:
                raise sort_error(error, wire) from None
            except requests.RequestException as error:
                at_full_limit = timeout_seconds >= FULL_TIMEOUT_SECONDS
                raise sort_failure("Twilio", error, at_full_limit=at_full_limit) from None

        circuit = TWILIO_WHATSAPP if channel == WHATSAPP else TWILIO_SMS
        return protected(circuit)(bounded)()


def sender_of(credentials: TwilioCredentials, channel: str) -> str:
    """What texts go out from: a Messaging Service's SID or a number. Raises InvalidInput when there is none."""
    return next(iter(_sender(credentials, channel).values()))


def _sender(credentials: TwilioCredentials, channel: str) -> dict[str, str]:
    """Who it comes from. A Messaging Service was set up to choose; WhatsApp wants the one connected number."""
    service = credentials.messaging_service_sid
    number = credentials.whatsapp_sender if channel == WHATSAPP else credentials.from_number
    if service and (channel == SMS or number is None):
        return {"messaging_service_sid": service}
    if number is None:
        wanted = "whatsapp_from or from_number" if channel == WHATSAPP else "from_number or messaging_service_sid"
        raise InvalidInput(f"the Twilio integration names no sender: set {wanted}")
    return {"from_": with_channel(channel, number)}


def _content(body: str, approved: Approved | None) -> dict[str, str]:
    if approved is None:
        return {"body": body}
    # Twilio docs, error 21656: no variable may be empty, or hold a line break, a tab or many spaces.
    values = {str(number): " ".join(value.split()) for number, value in enumerate(approved.variables, start=1)}
    return {"content_sid": approved.content_sid, "content_variables": orjson.dumps(values).decode()}


def _told(message: MessageInstance) -> SentMessage:
    if not message.sid:
        raise ProviderUnavailable("Twilio's answer names no message")
    return SentMessage(
        sid=message.sid,
        status=str(message.status or ""),
        to=without_channel(message.to or ""),
        sender=without_channel(message.from_) if message.from_ else None,
        body=message.body or "",
        created_at=message.date_created,
        error_code=str(message.error_code) if message.error_code else None,
    )
