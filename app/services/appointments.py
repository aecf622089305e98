"""Appointments as people decide them: hold a slot, move it, give it up.

Owns the row and its rules (open, free, not in the past). The calendar is brought in line by
``calendar_push.py``; nothing here calls anybody outside. Every decision plans its own finishing in
the same transaction, so that a crash a moment later loses nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import Session

from app.errors import InvalidInput, NotFound, SlotTaken
from app.integrations.google_calendar import GoogleCalendarCredentials
from app.models import appointments as rows
from app.models.appointments import Appointment, AppointmentStatus, CalendarAction
from app.models.messages import last_inbound_channel
from app.services import own_work, texts
from app.services.messages import plan_text
from app.services.own_work import OwnWork
from app.services.slots import Period, free_slots, is_open

if TYPE_CHECKING:
    from app.services.directory import Business
    from app.services.platform import Platform

FINISH_AFTER = timedelta(seconds=10)  # later than any caller's deadline: the caller's own thread comes first
LOOK_AHEAD = timedelta(days=14)
OFFERED = 3
OFFER_TIMEOUT_MS = 5_000  # a caller, or a program, waits for it
WHATSAPP_WINDOW = timedelta(hours=23)
_SLOT_STATES = ("23P01", "40P01")  # exclusion violated, or two bookings deadlocked over one slot: it is taken


@dataclass(frozen=True, slots=True)
class Booking:
    """What a caller asks for."""

    wanted: Period
    name: str
    phone: str | None
    channel: str
    notes: str | None
    call_id: str | None
    tool_call_id: str | None


def hold(platform: Platform, business: Business, booking: Booking) -> Appointment:
    """Hold the slot with a pending row; the same tool call gets the row it made before.

    Raises InvalidInput (past, closed) and SlotTaken.
    """
    check_bookable(business, booking.wanted)
    calendar_id = calendar_of(platform, business.id)
    try:
        with platform.database.transaction(business.id) as session:
            known = _made_before(session, business.id, booking)
            if known is not None:
                return known
            row = Appointment(
                org_id=business.id,
                calendar_id=calendar_id,
                starts_at=booking.wanted.start,
                ends_at=booking.wanted.end,
                status=AppointmentStatus.PENDING,
                calendar_action=CalendarAction.CREATE,
                name=booking.name,
                phone=booking.phone,
                channel=booking.channel,
                notes=booking.notes,
                call_id=booking.call_id,
                tool_call_id=booking.tool_call_id,
                version=1,
            )
            session.add(row)
            session.flush()
            plan_finish(session, row)
    except (IntegrityError, OperationalError) as error:
        raise _as_slot_taken(error) from None
    platform.bell.ring()
    return row


def move(platform: Platform, business: Business, appointment_id: UUID, wanted: Period) -> Appointment:
    """Hold the new time instead of the old one; the row may be pending. Raises InvalidInput, SlotTaken, NotFound."""
    check_bookable(business, wanted)
    try:
        with platform.database.transaction(business.id) as session:
            row = _lock_holding(session, business.id, appointment_id)
            if (row.starts_at, row.ends_at) == (wanted.start, wanted.end):
                return row
            if row.calendar_action != CalendarAction.CREATE:
                if row.previous_starts_at is None:
                    row.previous_starts_at, row.previous_ends_at = row.starts_at, row.ends_at
                row.calendar_action = CalendarAction.MOVE
            row.starts_at, row.ends_at = wanted.start, wanted.end
            row.version += 1
            session.flush()
            plan_finish(session, row)
    except (IntegrityError, OperationalError) as error:
        raise _as_slot_taken(error) from None
    platform.bell.ring()
    return row


def cancel(platform: Platform, business: Business, appointment_id: UUID) -> Appointment:
    """Give the slot up at once; the customer is texted, the calendar follows. Raises NotFound."""
    with platform.database.transaction(business.id) as session:
        row = _lock_holding(session, business.id, appointment_id)
        cancel_locked(session, business, row)
    platform.bell.ring()
    return row


def cancel_locked(session: Session, business: Business, row: Appointment) -> None:
    """The same for a row that the caller has locked, in the caller's transaction."""
    row.status = AppointmentStatus.CANCELLED
    row.calendar_action = CalendarAction.DELETE
    row.version += 1
    session.flush()
    when = Period(row.starts_at, row.ends_at)
    text_customer(
        session, row, texts.cancelled(business.name, when, ZoneInfo(business.timezone)), purpose="cancellation"
    )
    plan_finish(session, row)


def plan_finish(session: Session, row: Appointment, *, after: timedelta = FINISH_AFTER) -> None:
    """Plan that the calendar is brought in line, should nobody else manage it before."""
    own_work.plan(
        session,
        row.org_id,
        OwnWork.FINISH_APPOINTMENT,
        lane_key=f"appointment:{row.id}:{row.version}",
        payload={"appointment_id": str(row.id)},
        due_at=datetime.now(UTC) + after,
    )


def text_customer(session: Session, row: Appointment, body: str, *, purpose: str) -> None:
    """Plan the one text about this version of the appointment; nothing without a number."""
    if row.phone is None or row.texted_version >= row.version:
        return
    row.texted_version = row.version
    session.flush()
    plan_text(
        session,
        row.org_id,
        to=row.phone,
        body=body,
        channel=row.channel,
        idempotency_key=f"appointment:{row.id}:{row.version}",
        purpose=purpose,
        appointment_id=row.id,
        call_id=row.call_id,
    )


def check_bookable(business: Business, wanted: Period) -> None:
    """Raise InvalidInput for a time that is past or outside the opening hours."""
    if wanted.start <= datetime.now(UTC):
        raise InvalidInput("that time is in the past", code="past")
    if not is_open(business.opening_hours, wanted, ZoneInfo(business.timezone)):
        raise InvalidInput("the business is closed then", code="closed")


def offer(
    platform: Platform,
    business: Business,
    busy: list[Period],
    *,
    start: datetime,
    end: datetime | None = None,
    most: int = OFFERED,
) -> list[Period]:
    """Free slots from ``start`` on (not in the past), given what the calendar says is busy."""
    start = max(start, datetime.now(UTC))
    end = end or start + LOOK_AHEAD
    with platform.database.transaction(business.id, statement_timeout_ms=OFFER_TIMEOUT_MS) as session:
        held = rows.held_periods(session, business.id, calendar_of(platform, business.id), start=start, end=end)
    taken = [*busy, *(Period(begins, ends) for _, begins, ends in held)]
    zone = ZoneInfo(business.timezone)
    found = []
    for slot in free_slots(
        business.opening_hours, taken, start=start, end=end, zone=zone, minutes=business.slot_minutes
    ):
        found.append(slot)
        if len(found) == most:
            break
    return found


def find_one(platform: Platform, org_id: UUID, *, phone: str, starts_at: datetime | None) -> Appointment:
    """The customer's appointment that is meant: the one at that time, or the next one. Raises NotFound."""
    with platform.database.transaction(org_id) as session:
        upcoming = rows.upcoming_of(session, org_id, phone, now=datetime.now(UTC))
    for row in upcoming:
        if starts_at is None or row.starts_at == starts_at:
            return row
    raise NotFound("no upcoming appointment for this number")


def calendar_of(platform: Platform, org_id: UUID) -> str:
    """The calendar whose times exclude each other: Google's id, or the house's own without an integration."""
    try:
        credentials = platform.directory.integration(org_id, "google-calendar").credentials
    except NotFound:
        return "voicedesk"
    assert isinstance(credentials, GoogleCalendarCredentials)
    return credentials.calendar_id


def preferred_channel(platform: Platform, org_id: UUID, phone: str, asked: str | None) -> str:
    """SMS or WhatsApp: what was asked for, else by what the customer has just written to us."""
    if asked in ("sms", "whatsapp"):
        return asked
    with platform.database.transaction(org_id) as session:
        return last_inbound_channel(session, org_id, phone, within=WHATSAPP_WINDOW) or "sms"


def _made_before(session: Session, org_id: UUID, booking: Booking) -> Appointment | None:
    if not booking.call_id or not booking.tool_call_id:
        return None
    return rows.find_by_tool_call(session, org_id, call_id=booking.call_id, tool_call_id=booking.tool_call_id)


def _lock_holding(session: Session, org_id: UUID, appointment_id: UUID) -> Appointment:
    row = rows.lock_appointment(session, org_id, appointment_id)
    if row is None or row.status not in (AppointmentStatus.PENDING, AppointmentStatus.BOOKED):
        raise NotFound("no such upcoming appointment")
    return row


def _as_slot_taken(error: IntegrityError | OperationalError) -> Exception:
    return SlotTaken() if getattr(error.orig, "pgcode", None) in _SLOT_STATES else error
