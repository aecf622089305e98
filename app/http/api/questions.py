"""The shapes of what programs ask. Nothing is done with them here; unknown names are refused."""

from __future__ import annotations

from datetime import UTC, datetime
from datetime import date as Day
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, field_validator

from app.http.api.schemas import AppointmentStatus, Channel, DeliveryStatus, Direction, MessageStatus
from app.services.api_reads import LONGEST_PAGE
from app.services.free_times import MOST_DAYS
from app.services.tool_arguments import LONGEST_TEXT


def _in_utc(moment: datetime) -> datetime:
    """The same moment; PostgreSQL does not know all the offsets that there may be."""
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("is out of range") from None


Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]


class Asking(BaseModel):
    """What comes in; unknown names are refused."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    @field_validator("*")
    @classmethod
    def _refuse_nul(cls, value: Any) -> Any:
        if isinstance(value, str) and "\x00" in value:
            raise ValueError("must not contain NUL, which the database cannot keep")
        return value


class PageQuery(Asking):
    """Which stretch of a list, the newest first."""

    limit: int = Field(50, ge=1, le=LONGEST_PAGE, description="at most so many")
    cursor: str | None = Field(None, max_length=200, description="`next_cursor` of the page before")
    since: Moment | None = Field(None, description="from this time on, with its offset")
    until: Moment | None = Field(None, description="before this time, with its offset")


class DeliveriesQuery(PageQuery):
    """Which deliveries; since and until speak of ``received_at``."""

    status: DeliveryStatus | None = None
    provider: str | None = Field(None, max_length=50, description="such as vapi or stripe; voicedesk is our own work")
    type: str | None = Field(None, max_length=100, description="the event's type, such as end-of-call-report")
    event_id: str | None = Field(None, max_length=200, description="the event's id at its provider")


class CallsQuery(PageQuery):
    """Which calls; since and until speak of ``created_at``."""

    status: str | None = Field(None, max_length=50)
    call_id: str | None = Field(None, max_length=200, description="Vapi's id of the call")


class MessagesQuery(PageQuery):
    """Which texts; since and until speak of ``created_at``."""

    status: MessageStatus | None = None
    direction: Direction | None = None
    channel: Channel | None = None


class AppointmentsQuery(PageQuery):
    """Which appointments; since and until speak of ``starts_at``."""

    status: AppointmentStatus | None = None


class AvailabilityQuery(Asking):
    """Which days, in the organization's own time zone."""

    date: Day | None = Field(
        None, ge=Day(2000, 1, 1), le=Day(2199, 12, 31), description="the first day; today if left out"
    )
    days: int = Field(1, ge=1, le=MOST_DAYS)
    service: str | None = Field(None, max_length=200, description="by its name; needed where several are offered")
    staff: str | None = Field(None, max_length=200, description="only with this person or in this room, by name")


class UsageQuery(Asking):
    """Which month, in the organization's own time zone."""

    month: str | None = Field(
        None, pattern=r"^20\d\d-(0[1-9]|1[0-2])$", description="such as 2026-11; this one if left out"
    )


class NewMessage(Asking):
    """A text to be sent."""

    to: str = Field(min_length=3, max_length=40, description="the recipient's number, such as +4915112345678")
    body: str = Field(min_length=1, max_length=LONGEST_TEXT)
    channel: Channel = "sms"


class IdempotencyHeaders(BaseModel):
    """The same key is the same text, however often it is asked for."""

    idempotency_key: str = Field(alias="Idempotency-Key", pattern=r"^[\x21-\x7e]{1,200}$")
