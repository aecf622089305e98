"""Our own events, as people moved or deleted them in the calendar: the appointment's row follows.

Owns who decides when both sides have changed it, and what the customer is told. Each row is one short
transaction under its lock, in which the sync must still be the newest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.errors import ResourceGone
from app.integrations.google_calendar import CalendarEvent
from app.models import appointments as rows
from app.models.appointments import Appointment, AppointmentStatus
from app.models.calendar_syncs import Run, lock_run
from app.observability.logging import get_logger
from app.services import booking_rules, reminders, texts
from app.services.appointments import text_customer
from app.services.slots import Period

if TYPE_CHECKING:
    from app.services.directory import Business
    from app.services.platform import Platform

CANCELLED = "cancelled"
_OUR_ID = re.compile(r"vd([0-9a-f]{32})[0-9]+")
_HOLDING = (AppointmentStatus.PENDING, AppointmentStatus.BOOKED)

log = get_logger(__name__)


class NewerRun(Exception):
    """A newer sync has begun; what this one has read counts no more."""


@dataclass(frozen=True, slots=True)
class Follower:
    """One sync's way to the appointments. ``get_event`` asks Google for one event; it may raise ResourceGone."""

    platform: Platform
    business: Business
    run: Run
    calendar_id: str
    get_event: Callable[[str], CalendarEvent]

    def follow(self, events: Sequence[CalendarEvent]) -> list[CalendarEvent]:
        """Let the rows follow those events that are ours; return all others. Raises NewerRun."""
        found = self._rows(events)
        foreign = []
        for event in events:
            row = found.get(event.id)
            if row is None or (row.status not in _HOLDING and row.calendar_action is None):
                foreign.append(event)  # what was given up here and lives on there is somebody's own wish
            elif row.calendar_action is not None:
                continue  # what was decided here and is not done there yet wins, and is brought there
            elif event.all_day:
                foreign.append(event)
                log.warning("calendar.all_day", org_id=str(row.org_id), appointment_id=str(row.id))
            elif not _is_echo(row, event):
                self._follow_one(row.id, event)
        return foreign

    def follow_unseen(self, seen: Sequence[CalendarEvent], *, start: datetime, end: datetime) -> None:
        """After reading everything: whatever of ours was not there, or not in that time, is asked for by itself."""
        ids = {event.id for event in seen}
        with self.platform.database.transaction(self.business.id) as session:
            settled = rows.list_settled(session, self.business.id, self.calendar_id, start=start, end=end)
        for row in settled:
            if row.google_event_id is not None and row.google_event_id not in ids:
                self._follow_one(row.id, CalendarEvent(row.google_event_id, status=CANCELLED))

    def end_collisions(self) -> None:
        """Bookings that were dragged onto another hold their time again as soon as that is free."""
        with self.platform.database.transaction(self.business.id) as session:
            colliding = rows.list_colliding(session, self.business.id, self.calendar_id)
        for appointment_id in colliding:
            with self.platform.database.transaction(self.business.id) as session:
                row = self._lock(session, appointment_id)
                if row is None or not row.external_conflict or row.calendar_action is not None:
                    continue
                if self._take(session, row, Period(row.starts_at, row.ends_at)):
                    self._tell_moved(session, row)

    def _rows(self, events: Sequence[CalendarEvent]) -> dict[str, Appointment]:
        """The appointments of this calendar by their events' ids. A copy of an event has an id of its own: foreign."""
        candidates = {match[1] for event in events if (match := _OUR_ID.fullmatch(event.id))}
        with self.platform.database.transaction(self.business.id) as session:
            found = rows.find_by_ids(session, self.business.id, [UUID(hex=one) for one in candidates])
        ours = [row for row in found if row.calendar_id == self.calendar_id]
        return {event_id: row for row in ours for event_id in (row.event_id, row.google_event_id) if event_id}

    def _follow_one(self, appointment_id: UUID, event: CalendarEvent) -> None:
        if event.status == CANCELLED:
            event = self._ask_again(event)  # a list may leave out more than was deleted; nobody is told on a guess
        with self.platform.database.transaction(self.business.id) as session:
            row = self._lock(session, appointment_id)
            if row is None or row.status not in _HOLDING or row.calendar_action is not None:
                return
            if event.status == CANCELLED:
                self._cancel(session, row)
            elif not _is_older(row, event):
                self._move(session, row, event)

    def _ask_again(self, event: CalendarEvent) -> CalendarEvent:
        try:
            return self.get_event(event.id)
        except ResourceGone:
            return event

    def _lock(self, session: Session, appointment_id: UUID) -> Appointment | None:
        if not lock_run(session, self.run):
            raise NewerRun
        return rows.lock_appointment(session, self.business.id, appointment_id)

    def _cancel(self, session: Session, row: Appointment) -> None:
        row.status = AppointmentStatus.CANCELLED
        row.version += 1
        session.flush()
        log.info("calendar.cancelled_there", org_id=str(row.org_id), appointment_id=str(row.id))
        if row.starts_at > datetime.now(UTC):
            said = texts.cancelled(self.business.wording, Period(row.starts_at, row.ends_at))
            text_customer(session, row, said, purpose="cancellation")

    def _move(self, session: Session, row: Appointment, event: CalendarEvent) -> None:
        row.google_etag, row.google_updated_at = event.etag, event.updated
        if event.start is None or event.end is None or event.end <= event.start or event.all_day:
            return
        kept, wanted = Period(row.starts_at, row.ends_at), Period(event.start, event.end)
        if wanted.is_about(kept):
            return
        row.version += 1
        log.info("calendar.moved_there", org_id=str(row.org_id), appointment_id=str(row.id))
        if not self._take(session, row, wanted):
            log.warning("calendar.conflict", org_id=str(row.org_id), appointment_id=str(row.id), by="own_booking")
        elif wanted.start != kept.start:
            self._tell_moved(session, row)

    def _take(self, session: Session, row: Appointment, wanted: Period) -> bool:
        """Give the row this time, if need be on another seat; False when other bookings hold them all.

        Then both have the time, and a person decides.
        """
        session.flush()
        if self._try(session, row, wanted, row.seat):
            return True
        others = (seat for seat in self._seats(session, row) if seat != row.seat)
        if any(self._try(session, row, wanted, seat) for seat in others):
            return True
        row.starts_at, row.ends_at, row.external_conflict = wanted.start, wanted.end, True
        session.flush()
        return False

    def _try(self, session: Session, row: Appointment, wanted: Period, seat: int) -> bool:
        try:
            with session.begin_nested():
                row.starts_at, row.ends_at, row.external_conflict, row.seat = wanted.start, wanted.end, False, seat
                session.flush()
        except IntegrityError:
            return False
        return True

    def _seats(self, session: Session, row: Appointment) -> range:
        """The seats there are where the appointment is; none when that is no more."""
        rules = booking_rules.load(session, self.business, house_calendar=row.calendar_id)
        here = next((place for place in rules.places if place.id == row.resource_id), None)
        return range(1, here.seats + 1 if here else 1)

    def _tell_moved(self, session: Session, row: Appointment) -> None:
        if row.starts_at > datetime.now(UTC):
            said = texts.confirmation(self.business.wording, Period(row.starts_at, row.ends_at), moved=True)
            text_customer(session, row, said, purpose="confirmation")
            reminders.plan(session, self.business, row)


def _is_echo(row: Appointment, event: CalendarEvent) -> bool:
    """Our own writing, come back."""
    return event.status != CANCELLED and event.etag is not None and event.etag == row.google_etag


def _is_older(row: Appointment, event: CalendarEvent) -> bool:
    """Read before something that the row knows already."""
    return event.updated is not None and row.google_updated_at is not None and event.updated < row.google_updated_at
