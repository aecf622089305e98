"""What customers are told about an appointment by text: which template stands for what came of it.

Owns that choice and nothing else. The wordings are ``catalogue.py``'s, the language ``wording.py``'s.
"""

from __future__ import annotations

from collections.abc import Sequence

from app.services.slots import Period
from app.services.wording import Text, Wording


def confirmation(wording: Wording, appointment: Period, *, moved: bool) -> Text:
    """An appointment is in the calendar."""
    return wording.text("text.moved" if moved else "text.confirmation", when=appointment.start)


def cancelled(wording: Wording, appointment: Period) -> Text:
    """An appointment is no more."""
    return wording.text("text.cancelled", when=appointment.start)


def slot_gone(wording: Wording, wanted: Period, alternatives: Sequence[Period]) -> Text:
    """The noted time turned out to be taken before it reached the calendar."""
    if not alternatives:
        return wording.text("text.slot_gone_none_free", when=wanted.start)
    free = ", ".join(wording.time(slot.start) for slot in alternatives)
    return wording.text("text.slot_gone", when=wanted.start, options=free)


def move_failed(wording: Wording, wanted: Period, kept: Period) -> Text:
    """The noted new time cannot be had, so the old one stands."""
    return wording.text("text.move_failed", wanted=wanted.start, when=kept.start)


def not_booked(wording: Wording, wanted: Period) -> Text:
    """The noted time could not be written to the calendar, for no fault of the customer's."""
    return wording.text("text.not_booked", when=wanted.start)


def no_appointment(wording: Wording) -> Text:
    """There is nothing that could be cancelled or moved."""
    return wording.text("text.no_appointment")


def not_done(wording: Wording) -> Text:
    """What was taken down on the phone turned out to be impossible, and not because of a time."""
    return wording.text("text.could_not_be_done")
