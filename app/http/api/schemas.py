"""The shapes of what programs get; what they ask is in ``questions.py``. Nothing is done with them here.

What goes out is exactly what is named here, whatever more a service tells.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, WithJsonSchema

from app.services.readable import plain

DeliveryStatus = Literal["received", "processing", "retrying", "processed", "skipped", "dead"]
MessageStatus = Literal[
    "received",
    "planned",
    "sending",
    "unknown",
    "sent",
    "delivered",
    "read",
    "undelivered",
    "failed",
    "canceled",
    "refused",
]
AppointmentStatus = Literal["pending", "booked", "cancelled", "failed"]
Channel = Literal["sms", "whatsapp"]
Direction = Literal["inbound", "outbound"]
Moment = Annotated[
    datetime, PlainSerializer(plain, return_type=str), WithJsonSchema({"type": "string", "format": "date-time"})
]


class Telling(BaseModel):
    """What goes out."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True)


class Delivery(Telling):
    """An event that came in, or work the house gave itself, and how it stands."""

    id: int
    provider: str
    type: str
    event_id: str
    status: DeliveryStatus
    attempts: int
    received_at: Moment
    next_attempt_at: Moment
    finished_at: Moment | None
    waiting_on: str | None = Field(description="the open circuit it waits for")
    error_code: str | None
    note: str | None
    set_aside: bool = Field(description="it held up its lane for too long, and those behind it went on")


class Attempt(Telling):
    """One try at a delivery."""

    number: int
    started_at: Moment
    ended_at: Moment | None
    duration_ms: int | None
    outcome: str | None
    error_code: str | None
    error: str | None


class DeliveryInFull(Delivery):
    """A delivery with every attempt, what it said and what was answered."""

    lane: str
    occurred_at: Moment | None
    attempts_log: list[Attempt]
    payload: dict[str, Any] | None
    answer: dict[str, Any] | None
    raw: str | None = Field(description="base64 of a body that could not be understood")
    words_removed_at: Moment | None = Field(description="since when what was said is not kept any more")


class Replayed(Telling):
    """A delivery that is back in the queue. Effects that are recorded are not repeated."""

    id: int
    status: DeliveryStatus
    replayed: bool
    recorded_effects: list[dict[str, Any]]


class Call(Telling):
    """A phone call or web call."""

    id: UUID
    call_id: str = Field(description="Vapi's id of it")
    type: str | None
    status: str
    customer_number: str | None
    dialled_number: str | None
    started_at: Moment | None
    ended_at: Moment | None
    ended_reason: str | None
    duration_seconds: float | None
    cost: float | None = Field(description="US dollars")
    summary: str | None
    transcript: str | None
    recording_url: str | None
    structured_data: dict[str, Any] | None
    success_evaluation: str | None
    consent_sentence: str | None = Field(description="what the call was to begin with")
    consent_at: Moment | None
    words_removed_at: Moment | None = Field(description="since when what was said is not kept any more")
    created_at: Moment
    updated_at: Moment


class Message(Telling):
    """A text, in or out."""

    id: UUID
    direction: Direction
    channel: Channel
    sender: str | None = Field(alias="from")
    recipient: str | None = Field(alias="to")
    body: str
    media: list[Any]
    words_removed_at: Moment | None = Field(description="since when what it said is not kept any more")
    status: MessageStatus
    error_code: str | None
    error: str | None
    purpose: str | None
    appointment_id: UUID | None
    call_id: str | None
    created_at: Moment
    updated_at: Moment


class Appointment(Telling):
    """An appointment with a customer."""

    id: UUID
    name: str
    phone: str | None
    starts_at: Moment
    ends_at: Moment
    status: AppointmentStatus
    calendar_action: str | None = Field(description="what the calendar does not know yet")
    channel: Channel
    notes: str | None
    call_id: str | None
    external_conflict: bool
    failure: str | None
    created_at: Moment
    updated_at: Moment


class Slot(Telling):
    """A time that can be booked."""

    starts_at: Moment
    ends_at: Moment


class Availability(Telling):
    """Free times, the earliest first."""

    timezone: str
    slot_minutes: int = Field(description="how long what is asked for takes")
    service: str | None = Field(description="which service they are for, where services are offered")
    slots: list[Slot]


class Cost(Telling):
    """US dollars, as text with six places; null: not known."""

    vapi: str
    twilio: str | None = Field(description="texts at the price that the house reckons with")
    total: str


class Limit(Telling):
    """A monthly limit, and how much of it is used."""

    most: float
    percent: int


class Usage(Telling):
    """What was used in a month."""

    month: str
    timezone: str
    calls: int
    minutes: float
    texts: int = Field(description="texts that were sent")
    texts_received: int
    cost: Cost
    limits: dict[Literal["cost", "minutes", "texts"], Limit]


class Fault(BaseModel):
    """What is wrong with one field."""

    place: Literal["query", "header", "body"] = Field(alias="in")
    field: str
    code: str
    message: str


class Problem(BaseModel):
    """A failure (RFC 9457); ``code`` is for programs, ``detail`` for people."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    errors: list[Fault] = Field(default_factory=list)


class Page(Telling):
    """A stretch of a list, the newest first."""

    next_cursor: str | None = Field(description="for the next page; null at the end")


class DeliveryPage(Page):
    """Deliveries."""

    data: list[Delivery]


class CallPage(Page):
    """Calls."""

    data: list[Call]


class MessagePage(Page):
    """Texts."""

    data: list[Message]


class AppointmentPage(Page):
    """Appointments."""

    data: list[Appointment]
