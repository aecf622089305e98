"""The words that go out by text. Owns their wording and nothing else; templates by language come later."""

from __future__ import annotations

from collections.abc import Sequence
from zoneinfo import ZoneInfo

from app.services.slots import Period, say_time


def confirmation(business: str, appointment: Period, zone: ZoneInfo, *, moved: bool) -> str:
    """An appointment is in the calendar."""
    verb = "is moved to" if moved else "is confirmed for"
    return f"{business}: your appointment {verb} {say_time(appointment.start, zone)}. Reply C to cancel."


def cancelled(business: str, appointment: Period, zone: ZoneInfo) -> str:
    """An appointment is no more."""
    return f"{business}: your appointment on {say_time(appointment.start, zone)} is cancelled."


def slot_gone(business: str, wanted: Period, alternatives: Sequence[Period], zone: ZoneInfo) -> str:
    """The noted time turned out to be taken before it reached the calendar."""
    sorry = f"{business}: sorry, {say_time(wanted.start, zone)} has gone in the meantime."
    if not alternatives:
        return f"{sorry} Please call us for another time."
    free = ", ".join(say_time(slot.start, zone) for slot in alternatives)
    return f"{sorry} Free are: {free}. Please call us to book one."


def move_failed(business: str, wanted: Period, kept: Period, zone: ZoneInfo) -> str:
    """The noted new time cannot be had, so the old one stands."""
    return (
        f"{business}: sorry, {say_time(wanted.start, zone)} is not possible after all. "
        f"Your appointment stays on {say_time(kept.start, zone)}."
    )


def not_booked(business: str, wanted: Period, zone: ZoneInfo) -> str:
    """The noted time could not be written to the calendar, for no fault of the customer's."""
    return f"{business}: sorry, we could not book {say_time(wanted.start, zone)}. Please call us."


def nothing_to_cancel(business: str) -> str:
    """Somebody texted C who has no appointment."""
    return f"{business}: we found no upcoming appointment for this number."


def not_done(business: str) -> str:
    """What was taken down on the phone turned out to be impossible, and not because of a time."""
    return f"{business}: sorry, what you asked us for on the phone could not be done. Please call us."
