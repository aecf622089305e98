"""What the tools take: the arguments of each, and what a phone number is.

Owns the shapes that models are given and that their answers are held to; does nothing with them.
"""

from __future__ import annotations

from typing import Any

import phonenumbers
from pydantic import BaseModel, ConfigDict, Field

from app.errors import InvalidInput

LONGEST_TEXT = 1600
FEWEST_DIGITS = 6  # shorter ones are "possible" within one town, and reach nobody from elsewhere

_TIME = "ISO 8601, with an offset or local to the business, e.g. 2026-12-01T15:00"
_SERVICE = "Which service, by its name, if the business offers several"
_STAFF = "With whom or in which room, by name, if the caller has a wish"
_PHONE = "The customer's phone number, in international form if possible, e.g. +4915112345678"


class Arguments(BaseModel):
    """Arguments of a tool; unknown ones are ignored, because models invent some."""

    model_config = ConfigDict(extra="ignore", str_strip_whitespace=True)


class CheckAvailability(Arguments):
    """Find free appointment times."""

    start: str = Field(description=f"From when to look: a date or a time; {_TIME}", min_length=1)
    end: str | None = Field(None, description="Until when to look; a week from start if left out")
    service: str | None = Field(None, description=_SERVICE, max_length=200)
    staff: str | None = Field(None, description=_STAFF, max_length=200)


class BookAppointment(Arguments):
    """Book an appointment for the caller and text a confirmation."""

    start: str = Field(description=f"When it begins; {_TIME}", min_length=1)
    name: str = Field(description="The customer's name", min_length=1, max_length=200)
    phone: str = Field(description=_PHONE, min_length=1)
    service: str | None = Field(None, description=_SERVICE, max_length=200)
    staff: str | None = Field(None, description=_STAFF, max_length=200)
    channel: str | None = Field(None, description="How to text the confirmation: sms or whatsapp")
    notes: str | None = Field(None, description="Anything the business should know", max_length=2000)


class RescheduleAppointment(Arguments):
    """Move the caller's upcoming appointment to another time."""

    phone: str = Field(description=_PHONE, min_length=1)
    new_start: str = Field(description=f"When it shall begin; {_TIME}", min_length=1)
    start: str | None = Field(None, description=f"Which appointment, if there are several: its time now; {_TIME}")
    service: str | None = Field(None, description="Another service than now, by its name", max_length=200)
    staff: str | None = Field(None, description="With somebody else than now, by name", max_length=200)


class CancelAppointment(Arguments):
    """Cancel the caller's upcoming appointment."""

    phone: str = Field(description=_PHONE, min_length=1)
    start: str | None = Field(None, description=f"Which appointment, if there are several: its time; {_TIME}")


class SendText(Arguments):
    """Send the caller a text message."""

    phone: str = Field(description=_PHONE, min_length=1)
    text: str = Field(description="What to send", min_length=1, max_length=LONGEST_TEXT)
    channel: str | None = Field(None, description="sms or whatsapp")


def normalise_phone(said: str, *, near: str | None) -> str:
    """E.164 from a number as it was said; raises InvalidInput without repeating it."""
    region = None
    if near:
        try:
            region = phonenumbers.region_code_for_number(phonenumbers.parse(near))
        except phonenumbers.NumberParseException:
            region = None
    try:
        number = phonenumbers.parse(said, region)
    except phonenumbers.NumberParseException:
        raise InvalidInput("the phone number is not complete", code="phone_incomplete") from None
    if not phonenumbers.is_possible_number(number) or len(str(number.national_number)) < FEWEST_DIGITS:
        raise InvalidInput("the phone number is not complete", code="phone_incomplete")
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def plain_property(prop: dict[str, Any]) -> dict[str, Any]:
    """A property without pydantic's titles and nulls, as providers of models expect it."""
    return {"type": "string", "description": prop.get("description", "")}
