"""The reminder on the day before an appointment, at a decent local hour.

Owns when it is due, and that it is about the appointment as it then is: the row is read again under its lock.
A reminder is planned for a time, not for a version, so that of several plans one text comes.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy.orm import Session

from app.models.appointments import Appointment, AppointmentStatus, lock_appointment
from app.services import own_work
from app.services.delivery import Postponed, Skip, Work
from app.services.messages import plan_text
from app.services.own_work import OwnWork
from app.services.slots import clocks_show

if TYPE_CHECKING:
    from app.services.directory import Business

SOONEST = timedelta(hours=2)  # after the confirmation: who has just been told is not reminded
LATEST = timedelta(hours=1)  # before the appointment: later it helps nobody
BEFORE_QUIET = timedelta(minutes=30)  # so that a little delay does not bring it into the quiet hours
PURPOSE = "reminder"
_HOLDING = (AppointmentStatus.PENDING, AppointmentStatus.BOOKED)


def plan(session: Session, business: Business, row: Appointment) -> None:
    """Plan the reminder of the appointment at the time it has now, in the caller's transaction. Safe to repeat."""
    if not business.reminders or row.phone is None:
        return
    due = due_at(row.starts_at, ZoneInfo(business.timezone), business.quiet_hours)
    if due < _now() + SOONEST:
        return
    own_work.plan(
        session,
        row.org_id,
        OwnWork.REMIND,
        lane_key=f"reminder:{row.id}:{row.starts_at.astimezone(UTC):%Y%m%dT%H%M%S}",
        payload={"appointment_id": str(row.id), "starts_at": row.starts_at.astimezone(UTC).isoformat()},
        due_at=due,
    )


def remind(work: Work) -> Skip | None:
    """Handler of ``appointment.remind``: text the customer, if the appointment is still at that time.

    Raises Postponed while it is quiet there, and before its time, which may have changed with the organization's hours.
    """
    org_id = work.delivery.org_id
    payload = work.delivery.body or {}
    business = work.platform.directory.business(org_id)
    now = _now()
    with work.platform.database.transaction(org_id) as session:
        row = lock_appointment(session, org_id, UUID(payload["appointment_id"]))
        if row is None or row.status not in _HOLDING:
            return Skip("the appointment is no more")
        if row.starts_at != datetime.fromisoformat(payload["starts_at"]):
            return Skip("the appointment has another time now")
        if not business.reminders or row.phone is None or row.external_conflict:
            return Skip("nobody is to be reminded")
        if row.starts_at < now + LATEST:
            return Skip("it is too late for a reminder")
        zone = ZoneInfo(business.timezone)
        due = due_at(row.starts_at, zone, business.quiet_hours)
        if now < due:
            raise Postponed("it is not time yet", after=due - now)
        until = quiet_until(now, zone, business.quiet_hours)
        if until is not None:
            raise Postponed("it is quiet there", after=until - now)
        plan_text(
            session,
            org_id,
            to=row.phone,
            body=business.wording.text("text.reminder", when=row.starts_at),
            channel=row.channel,
            idempotency_key=f"reminder:{row.id}:{payload['starts_at']}",
            purpose=PURPOSE,
            appointment_id=row.id,
        )
    work.platform.bell.ring()
    return None


def due_at(starts_at: datetime, zone: ZoneInfo, quiet: Sequence[str]) -> datetime:
    """The local day before, at the appointment's own clock time; in quiet hours after them, or else before them."""
    local = starts_at.astimezone(zone)
    day = local.date() - timedelta(days=1)
    wanted = clocks_show(datetime.combine(day, local.time()), zone)
    until = quiet_until(wanted, zone, quiet)
    if until is None:
        return wanted
    if until.astimezone(zone).date() == day:
        return until
    return clocks_show(datetime.combine(day, time.fromisoformat(quiet[0])), zone) - BEFORE_QUIET


def quiet_until(moment: datetime, zone: ZoneInfo, quiet: Sequence[str]) -> datetime | None:
    """When the quiet hours end that the moment lies in; None when it lies in none."""
    if not quiet:
        return None
    begins, ends = (time.fromisoformat(said) for said in quiet)
    today = moment.astimezone(zone).date()
    for day in (today - timedelta(days=1), today):
        first, last = _night(day, begins, ends, zone)
        if first <= moment < last:
            return last
    return None


def _now() -> datetime:
    return datetime.now(UTC)


def _night(day: date, begins: time, ends: time, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """The quiet hours that begin on that local day."""
    last = day if begins < ends else day + timedelta(days=1)
    return clocks_show(datetime.combine(day, begins), zone), clocks_show(datetime.combine(last, ends), zone)
