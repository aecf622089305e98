"""Google's push messages: "something changed, go and look" (Calendar API guide, "Push notifications").

Owns whether a push is to be believed and how it reads. A push has no body and says nothing about
what changed; many of them mean one look.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from uuid import UUID

from app.errors import MalformedEvent, SignatureInvalid, SignatureMissing
from app.integrations.events import InboundEvent, WebhookRequest
from app.integrations.google_calendar.credentials import GoogleCalendarCredentials

PROVIDER = "google-calendar"
TOKEN_HEADER = "x-goog-channel-token"  # noqa: S105 - the header's name
CHANNEL_HEADER = "x-goog-channel-id"
RESOURCE_HEADER = "x-goog-resource-id"

_CHANNEL_ID = re.compile(r"[A-Za-z0-9\-_+/=]{1,64}")
_MESSAGE_NUMBER = re.compile(r"[0-9]{1,20}")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_LONGEST = 2000


def verify(request: WebhookRequest, credentials: GoogleCalendarCredentials, *, now: datetime) -> None:
    """Raise unless the push carries this integration's channel token, and its channel and resource if set.

    Google does not sign: the token is all there is, and it has no date, so ``now`` is not looked at.
    Raises SignatureMissing for what is not there, SignatureInvalid for what is wrong; an integration
    without a channel token believes nobody. A channel that the house made itself passes where another
    is set, so that both are believed while one takes over from the other.
    """
    del now
    if not request.headers.get(TOKEN_HEADER):
        raise SignatureMissing
    if credentials.channel_token is None:
        raise SignatureInvalid("this integration has no channel_token to compare with")
    token = credentials.channel_token.get_secret_value()
    _check(request, TOKEN_HEADER, token)
    if not _is_our_channel(request.headers.get(CHANNEL_HEADER) or "", token):
        _check(request, CHANNEL_HEADER, credentials.channel_id)
    _check(request, RESOURCE_HEADER, credentials.resource_id)


def new_channel_id(token: str) -> str:
    """A UUID for a channel of ours; its second half proves the first by the channel token."""
    first = secrets.token_bytes(8)
    return str(UUID(bytes=first + _proof(first, token)))


def _is_our_channel(channel_id: str, token: str) -> bool:
    try:
        made = UUID(channel_id).bytes
    except ValueError:
        return False
    return hmac.compare_digest(made[8:], _proof(made[:8], token))


def _proof(first: bytes, token: str) -> bytes:
    return hmac.digest(token.encode(), b"channel:" + first, "sha256")[:8]


def _check(request: WebhookRequest, header: str, expected: str | None) -> None:
    if expected is None:
        return
    presented = request.headers.get(header)
    if not presented:
        raise SignatureMissing
    if not hmac.compare_digest(_wire(presented), expected.encode()):
        raise SignatureInvalid


def parse(request: WebhookRequest) -> InboundEvent:
    """Understand a push: ``calendar.sync`` for a channel's first, ``calendar.changed`` for all others.

    A state Google may yet invent is a reason to look, too. Raises MalformedEvent.
    """
    channel_id = _needed(request, CHANNEL_HEADER)
    resource_id = _needed(request, RESOURCE_HEADER)
    state = _needed(request, "x-goog-resource-state")
    number = _needed(request, "x-goog-message-number")
    if not _CHANNEL_ID.fullmatch(channel_id) or not _MESSAGE_NUMBER.fullmatch(number):
        raise MalformedEvent("the push's channel id or message number is malformed")
    expiration = _moment(request.headers.get("x-goog-channel-expiration", ""))
    return InboundEvent(
        provider=PROVIDER,
        type="calendar.sync" if state == "sync" else "calendar.changed",
        event_key=f"{channel_id}:{int(number)}",
        lane_key=f"calendar:{hashlib.sha256(resource_id.encode()).hexdigest()[:16]}",
        payload={
            "channel_id": channel_id,
            "resource_id": resource_id,
            "resource_state": state,
            "message_number": int(number),
            "expiration": expiration.isoformat() if expiration else None,
            "resource_uri": _clean(request.headers.get("x-goog-resource-uri", "")) or None,
        },
    )


def _needed(request: WebhookRequest, header: str) -> str:
    value = _clean(request.headers.get(header, ""))
    if not value:
        raise MalformedEvent("the push lacks a header that Google always sends")
    return value


def _clean(value: str) -> str:
    """A header as text that can be stored."""
    return _UNPRINTABLE.sub("\ufffd", value.strip())[:_LONGEST]


def _moment(value: str) -> datetime | None:
    """Google sends an HTTP date; its guide shows epoch milliseconds."""
    try:
        if value.isdecimal():
            return datetime.fromtimestamp(int(value) / 1000, UTC)
        return parsedate_to_datetime(value).astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _wire(text: str) -> bytes:
    """The bytes of a header as they came: WSGI hands them over as Latin-1 text."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
