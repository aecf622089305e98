"""Whose turn it is at a provider: what may go out now, and when a delivery comes back that may not.

Owns which account a call counts for and at what rate; the counting is ``integrations/rates.py``'s. A
delivery without a token holds no thread and spends no attempt: its turn is a date in its row. Whoever
is on the line has precedence: their call goes out at once, and those who are not wait for the token.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from app.errors import InvalidInput, ProviderThrottled
from app.integrations.breaker import FORWARD, GOOGLE_CALENDAR_EVENTS, GOOGLE_CALENDAR_FREEBUSY
from app.integrations.google_calendar import GoogleCalendarCredentials
from app.integrations.twilio import TwilioCredentials, sender_of
from app.services.delivery import Postponed

if TYPE_CHECKING:
    from app.config import Settings
    from app.models.messages import Message
    from app.services.platform import Platform

FORWARDS_PER_SECOND = 20.0  # to somebody's own server that has just come back; nobody says what it can take
HELD_BACK = timedelta(seconds=1)  # after a 429 that does not say for how long


def take_for_text(platform: Platform, credentials: TwilioCredentials, message: Message) -> None:
    """A token for this text from its sender. Raises Postponed until its turn."""
    rate = _text_rate(platform, credentials)
    _postpone(platform.rates.take(_text_account(credentials, message.channel), rate, holder=str(message.id)))


@contextmanager
def sending(platform: Platform, credentials: TwilioCredentials, message: Message, *, seconds: float) -> Iterator[None]:
    """Around the call to Twilio: what the way there takes must not bring two texts closer than their tokens were.

    Raises Postponed when this process was held up for so long that others have had the token since.
    """
    account, rate, holder = _text_account(credentials, message.channel), _text_rate(platform, credentials), message.id
    while not platform.rates.begin(account, rate, holder=str(holder), seconds=seconds):
        _postpone(platform.rates.take(account, rate, holder=str(holder)))
    try:
        yield
    finally:
        platform.rates.end(account, rate, holder=str(holder))


def text_was_throttled(
    platform: Platform, credentials: TwilioCredentials, message: Message, error: ProviderThrottled
) -> None:
    """Twilio answered 429: nobody sends from there for as long as it asks for."""
    wish = error.retry_after or HELD_BACK
    platform.rates.hold_back(_text_account(credentials, message.channel), wish.total_seconds())


def take_for_change(
    platform: Platform,
    integration_id: UUID,
    credentials: GoogleCalendarCredentials,
    appointment_id: UUID,
    *,
    waiting: bool,
) -> None:
    """A token for one change of a calendar. Raises Postponed until its turn, never when somebody is ``waiting``."""
    rate = credentials.changes_per_second or platform.settings.google_changes_per_second
    holder = f"{appointment_id}:{uuid4().hex[:8]}"
    _postpone(platform.rates.take(_calendar_account(integration_id), rate, holder=holder, pressing=waiting))


def change_was_throttled(platform: Platform, integration_id: UUID, error: ProviderThrottled) -> None:
    """Google answered 429: no changes from us for as long as it asks for."""
    wish = error.retry_after or HELD_BACK
    platform.rates.hold_back(_calendar_account(integration_id), wish.total_seconds())


def rate_of(settings: Settings, circuit: str) -> float:
    """How many a second may be woken, of one organization, when this circuit closes."""
    if circuit in (GOOGLE_CALENDAR_EVENTS, GOOGLE_CALENDAR_FREEBUSY):
        return settings.google_changes_per_second
    if circuit.startswith(f"{FORWARD}:"):
        return FORWARDS_PER_SECOND
    return settings.twilio_texts_per_second


def _text_rate(platform: Platform, credentials: TwilioCredentials) -> float:
    return credentials.texts_per_second or platform.settings.twilio_texts_per_second


def _text_account(credentials: TwilioCredentials, channel: str) -> str:
    try:
        sender = sender_of(credentials, channel)
    except InvalidInput:
        sender = ""  # the send itself says so, and what becomes of the text
    return f"twilio:{credentials.account_sid}:{sender}"


def _calendar_account(integration_id: UUID) -> str:
    return f"google:{integration_id}"


def _postpone(seconds: float) -> None:
    if seconds > 0:
        raise Postponed("its turn at the provider's rate comes later", after=timedelta(seconds=seconds))
