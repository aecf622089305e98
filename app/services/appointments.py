"""Appointments as people decide them: hold a slot, move it, give it up.

Owns the row, and which seat it gets; what is allowed is ``booking_rules.py``'s. The calendar is brought in
line by ``calendar_push.py``; nothing here calls anybody outside. Every decision plans its own finishing in
the same transaction, so that a crash a moment later loses nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import Session

from app.errors import NotFound, SlotTaken
from app.models import appointments as rows
from app.models.appointments import Appointment, AppointmentStatus, CalendarAction
from app.models.held_times import held_periods
from app.models.messages import last_inbound_channel
from app.services import notices, own_work, texts
from app.services.booking_rules import Offered, Place
from app.services.messages import plan_text
from app.services.notices import About
from app.services.offers import Wish
from app.services.own_work import OwnWork
from app.services.slots import Period
from app.services.wording import Text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from app.services.directory import Business
    from app.services.platform import Platform

FINISH_AFTER = timedelta(seconds=10)  # later than any caller's deadline: the caller's own thread comes first
WHATSAPP_WINDOW = timedelta(hours=23)
TRIES = 3  # of two that deadlock over one time, a booking and the calendar's mirror, the other may have left a seat
_EXCLUDED, _DEADLOCKED = "23P01", "40P01"


@dataclass(frozen=True, slots=True)
class Booking:
    """What a caller asks for; ``wish`` says of which service and with whom."""

    wish: Wish
    wanted: Period
    name: str
    phone: str | None
    channel: str
    notes: str | None
    call_id: str | None
    tool_call_id: str | None


def hold(platform: Platform, business: Business, booking: Booking) -> Appointment:
    """Hold the slot with a pending row, with the first who has a seat; the same tool call gets its row again.

    Raises InvalidInput (past, closed, too soon, too far ahead) and SlotTaken.
    """
    wish = booking.wish
    places = wish.rules.check(wish.service, wish.places, booking.wanted)

    def take(session: Session) -> Appointment:
        known = _made_before(session, business.id, booking)
        if known is not None:
            return known
        row = _seat(session, business.id, wish.service, places, booking.wanted, lambda: _new_row(business.id, booking))
        plan_finish(session, row)
        return row

    return _taking(platform, business.id, take)


def move(
    platform: Platform,
    business: Business,
    appointment_id: UUID,
    wish: Wish,
    wanted: Period,
    *,
    by_text: str | None = None,
) -> Appointment:
    """Hold the new time instead of the old one; the row may be pending. Raises InvalidInput, SlotTaken, NotFound.

    ``by_text``: the channel by which it was asked for, and is confirmed. Nobody is on the line then, so the
    calendar is brought in line at once.
    """
    after = FINISH_AFTER if by_text is None else timedelta(0)
    places = wish.rules.check(wish.service, wish.places, wanted)

    def take(session: Session) -> Appointment:
        row = _lock_holding(session, business.id, appointment_id)
        row.channel = by_text or row.channel
        same_place = row.resource_id in {place.id for place in places}
        if same_place and (row.starts_at, row.ends_at) == (wanted.start, wanted.end):
            return row
        if row.calendar_action != CalendarAction.CREATE:
            if row.previous_starts_at is None:
                row.previous_starts_at, row.previous_ends_at = row.starts_at, row.ends_at
            row.calendar_action = CalendarAction.MOVE
        row.version += 1
        session.flush()
        plan_finish(session, _seat(session, business.id, wish.service, places, wanted, lambda: row), after=after)
        return row

    return _taking(platform, business.id, take)


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
    said = texts.cancelled(business.wording, Period(row.starts_at, row.ends_at))
    text_customer(session, row, said, purpose="cancellation")
    notices.plan(session, business, row, About.CHANGES, "cancelled", when=row.starts_at)
    plan_finish(session, row)


def plan_finish(session: Session, row: Appointment, *, after: timedelta = FINISH_AFTER) -> None:
    """Plan that the calendar is brought in line, should nobody else manage it before."""
    own_work.plan(
        session,
        row.org_id,
        OwnWork.FINISH_APPOINTMENT,
        lane_key=f"appointment:{row.id}:{row.version}",
        payload={"appointment_id": str(row.id)},
        after=after,
    )


def text_customer(session: Session, row: Appointment, said: Text, *, purpose: str) -> None:
    """Plan the one text about this version of the appointment; nothing without a number."""
    if row.phone is None or row.texted_version >= row.version:
        return
    row.texted_version = row.version
    session.flush()
    plan_text(
        session,
        row.org_id,
        to=row.phone,
        body=said,
        channel=row.channel,
        idempotency_key=f"appointment:{row.id}:{row.version}",
        purpose=purpose,
        appointment_id=row.id,
        call_id=row.call_id,
    )


def find_one(platform: Platform, org_id: UUID, *, phone: str, starts_at: datetime | None) -> Appointment:
    """The customer's appointment that is meant: the one at that time, or the next one. Raises NotFound."""
    with platform.database.transaction(org_id) as session:
        upcoming = rows.upcoming_of(session, org_id, phone, now=datetime.now(UTC))
    for row in upcoming:
        if starts_at is None or row.starts_at == starts_at:
            return row
    raise NotFound("no upcoming appointment for this number")


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


def _new_row(org_id: UUID, booking: Booking) -> Appointment:
    return Appointment(
        org_id=org_id,
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


def _seat(
    session: Session,
    org_id: UUID,
    service: Offered,
    places: Sequence[Place],
    wanted: Period,
    make: Callable[[], Appointment],
) -> Appointment:
    """Give a row the time with the first of the places that has a seat; raises SlotTaken when none has.

    Seats that look free are tried one after the other: whoever takes one first keeps it, by the constraint.
    """
    around = service.held(wanted)
    own = make()
    held = [one for one in held_periods(session, org_id, start=around.start, end=around.end) if one.id != own.id]
    for place in places:
        for seat in place.free_seats(held, around):
            try:
                with session.begin_nested():
                    return _put(session, make(), service, place, seat, wanted)
            except IntegrityError as error:
                if getattr(error.orig, "pgcode", None) != _EXCLUDED:
                    raise
    raise SlotTaken


def _put(session: Session, row: Appointment, service: Offered, place: Place, seat: int, wanted: Period) -> Appointment:
    if row.calendar_id is None or row.resource_id != place.id:  # who stays keeps the calendar they are written in
        row.calendar_id = place.calendar_id
    row.resource_id, row.seat, row.service_id = place.id, seat, service.id
    row.buffer_before, row.buffer_after = service.buffer_before, service.buffer_after
    row.starts_at, row.ends_at = wanted.start, wanted.end
    session.add(row)
    session.flush()
    return row


def _taking(platform: Platform, org_id: UUID, take: Callable[[Session], Appointment]) -> Appointment:
    """One transaction that takes a time; raises SlotTaken when bookings keep deadlocking over it."""
    for _ in range(TRIES):
        try:
            with platform.database.transaction(org_id) as session:
                rows.wait_for_turn(session, org_id)
                row = take(session)
        except OperationalError as error:
            if getattr(error.orig, "pgcode", None) != _DEADLOCKED:
                raise
            continue
        platform.bell.ring()
        return row
    raise SlotTaken
