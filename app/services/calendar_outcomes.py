"""What is written back of a push: the row under its lock decides, whoever comes first.

Owns every change a push makes to an appointment, and who is texted about it. Calls nobody outside,
so that each change is one short transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.errors import NotFound
from app.integrations.google_calendar import CalendarEvent
from app.models import appointments as rows
from app.models.appointments import Appointment, AppointmentStatus, CalendarAction
from app.services import notices, reminders, texts
from app.services.appointments import plan_finish, text_customer
from app.services.notices import About
from app.services.offers import HOUSE_CALENDAR
from app.services.slots import Period

if TYPE_CHECKING:
    from app.services.directory import Business
    from app.services.platform import Platform

_HOLDING = (AppointmentStatus.PENDING, AppointmentStatus.BOOKED)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The row as it was when the calendar was asked, detached."""

    id: UUID
    action: str
    version: int
    event_id: str
    begun_before: bool
    confirmed: bool
    period: Period
    previous: Period | None
    etag: str | None
    name: str
    notes: str | None
    # with what lies before and after it; and the calendar of whom it is with, None for the organization's
    held: Period
    calendar_id: str | None
    resource_id: UUID | None


@dataclass(frozen=True, slots=True)
class Outcomes:
    """The row's side of a push. ``waiting``: a caller is on the line and hears the outcome instead of reading it."""

    platform: Platform
    business: Business
    waiting: bool

    def begin(self, appointment_id: UUID) -> Snapshot | None:
        """What is to be done, noted as begun; None when the calendar knows everything. Raises NotFound."""
        with self.platform.database.transaction(self.business.id) as session:
            row = rows.lock_appointment(session, self.business.id, appointment_id)
            if row is None:
                raise NotFound("no such appointment")
            if row.calendar_action is None:
                return None
            begun_before = row.creation_begun
            if row.calendar_action == CalendarAction.CREATE:
                row.creation_begun = True
            return _snapshot(row, begun_before=begun_before)

    def read(self, appointment_id: UUID) -> Appointment:
        """The row as it is now, detached. Raises NotFound."""
        with self.platform.database.transaction(self.business.id) as session:
            row = rows.find_appointment(session, self.business.id, appointment_id)
            if row is None:
                raise NotFound("no such appointment")
            return row

    def done(self, snapshot: Snapshot, event: CalendarEvent | None) -> None:
        """Google has done it: say so in the row, unless people have decided otherwise in the meantime."""
        with self.platform.database.transaction(self.business.id) as session:
            row = rows.lock_appointment(session, self.business.id, snapshot.id)
            if row is None:
                return
            if event is not None:
                row.google_event_id, row.google_etag, row.google_updated_at = event.id, event.etag, event.updated
            if row.status not in _HOLDING:
                self._done_too_late(session, row, snapshot)
                return
            row.status = AppointmentStatus.BOOKED
            if row.version != snapshot.version:  # moved while we were away; what Google has now is the old time
                row.calendar_action = CalendarAction.MOVE
                row.previous_starts_at, row.previous_ends_at = snapshot.period.start, snapshot.period.end
                return
            elsewhere = _found_elsewhere(snapshot, event)
            if elsewhere is not None:  # an earlier try's insert, which somebody has moved since: ours is done first
                row.calendar_action = CalendarAction.MOVE
                row.previous_starts_at, row.previous_ends_at = elsewhere.start, elsewhere.end
                return
            moved = snapshot.action == CalendarAction.MOVE
            row.calendar_action = row.previous_starts_at = row.previous_ends_at = None
            said = texts.confirmation(self.business.wording, snapshot.period, moved=moved)
            text_customer(session, row, said, purpose="confirmation")
            about, notice = (About.CHANGES, "moved") if moved else (About.BOOKINGS, "booked")
            notices.plan(session, self.business, row, about, notice, when=row.starts_at)
            reminders.plan(session, self.business, row)
        self.platform.bell.ring()

    def new_creation(self, snapshot: Snapshot) -> None:
        """Its event was deleted, and a deleted event keeps its id for ever: create one with the next id."""
        with self.platform.database.transaction(self.business.id) as session:
            row = rows.lock_appointment(session, self.business.id, snapshot.id)
            if row is None or row.event_id != snapshot.event_id or row.status not in _HOLDING:
                return
            row.creations += 1
            row.creation_begun = False
            row.google_event_id = row.google_etag = row.google_updated_at = None
            row.calendar_action = CalendarAction.CREATE

    def lose_slot(self, snapshot: Snapshot, alternatives: list[Period]) -> bool:
        """Somebody else has the time in the calendar; False when the row has changed meanwhile."""
        with self.platform.database.transaction(self.business.id) as session:
            row = rows.lock_appointment(session, self.business.id, snapshot.id)
            if row is None or row.version != snapshot.version or not _is_creating(row):
                return False
            _fail(session, row, "slot_taken", begun_before=snapshot.begun_before)
            if not self._is_told(row):
                said = texts.slot_gone(self.business.wording, snapshot.period, alternatives)
                text_customer(session, row, said, purpose="slot_gone")
                notices.plan(session, self.business, row, About.UNFINISHED, "not_booked", when=row.starts_at)
        self.platform.bell.ring()
        return True

    def move_back(self, snapshot: Snapshot, kept: Period) -> bool:
        """The new time cannot be had, and the calendar has ``kept``; False when the row has changed meanwhile.

        Should somebody have booked that time since, both have it: a conflict for a person to settle.
        """
        try:
            moved = self._move_back(snapshot, kept, conflict=False)
        except IntegrityError:
            moved = self._move_back(snapshot, kept, conflict=True)
        self.platform.bell.ring()
        return moved

    def give_up(self, snapshot: Snapshot, failure: str) -> None:
        """The calendar will never take it: nothing is held for ever, and whoever waits for a text gets one.

        A deletion stays to be done: the slot is free already, and a replay can finish it.
        """
        if snapshot.action == CalendarAction.MOVE:
            self.move_back(snapshot, snapshot.previous or snapshot.period)
            return
        with self.platform.database.transaction(self.business.id) as session:
            row = rows.lock_appointment(session, self.business.id, snapshot.id)
            if row is None or row.version != snapshot.version or not _is_creating(row):
                return
            _fail(session, row, failure, begun_before=snapshot.begun_before)
            if not self._is_told(row):
                said = texts.not_booked(self.business.wording, snapshot.period)
                text_customer(session, row, said, purpose="not_booked")
                notices.plan(session, self.business, row, About.UNFINISHED, "not_booked", when=row.starts_at)
        self.platform.bell.ring()

    def _move_back(self, snapshot: Snapshot, kept: Period, *, conflict: bool) -> bool:
        with self.platform.database.transaction(self.business.id) as session:
            row = rows.lock_appointment(session, self.business.id, snapshot.id)
            if row is None or row.version != snapshot.version or row.status not in _HOLDING:
                return False
            row.starts_at, row.ends_at = kept.start, kept.end
            row.calendar_action = row.previous_starts_at = row.previous_ends_at = None
            row.version += 1
            if conflict:
                row.external_conflict, row.failure = True, "move_failed"
            session.flush()
            if not self._is_told(row):
                said = texts.move_failed(self.business.wording, snapshot.period, kept)
                text_customer(session, row, said, purpose="move_failed")
                times = {"wanted": snapshot.period.start, "when": kept.start}
                notices.plan(session, self.business, row, About.UNFINISHED, "not_moved", **times)
            reminders.plan(session, self.business, row)
        return True

    def _done_too_late(self, session: Session, row: Appointment, snapshot: Snapshot) -> None:
        if snapshot.action == CalendarAction.DELETE:
            row.calendar_action = None
        else:  # our event came after the appointment was given up: it has to go again
            row.calendar_action = CalendarAction.DELETE
            plan_finish(session, row, after=timedelta(0))

    def _is_told(self, row: Appointment) -> bool:
        """Whether the outcome is heard on the line, and no text was promised."""
        return self.waiting and not row.promised_text


def period_of(event: CalendarEvent) -> Period | None:
    """Where the event is; None for one that was deleted."""
    if event.status == "cancelled" or event.start is None or event.end is None:
        return None
    return Period(event.start, event.end)


def _found_elsewhere(snapshot: Snapshot, event: CalendarEvent | None) -> Period | None:
    """Where the event is that was to be created, when that is not where it should be."""
    found = period_of(event) if event is not None and snapshot.action == CalendarAction.CREATE else None
    return None if found is None or found.is_about(snapshot.period) else found


def _is_creating(row: Appointment) -> bool:
    return row.status in _HOLDING and row.calendar_action == CalendarAction.CREATE


def _fail(session: Session, row: Appointment, failure: str, *, begun_before: bool) -> None:
    """Give the slot up; an earlier try's insert may still arrive at Google, and has to go again."""
    row.status, row.failure = AppointmentStatus.FAILED, failure
    row.calendar_action = CalendarAction.DELETE if begun_before else None
    session.flush()
    if begun_before:
        plan_finish(session, row)


def _snapshot(row: Appointment, *, begun_before: bool) -> Snapshot:
    assert row.calendar_action is not None
    previous = (
        Period(row.previous_starts_at, row.previous_ends_at)
        if row.previous_starts_at is not None and row.previous_ends_at is not None
        else None
    )
    return Snapshot(
        id=row.id,
        action=row.calendar_action,
        version=row.version,
        event_id=row.event_id,
        begun_before=begun_before,
        confirmed=row.google_event_id is not None,
        period=Period(row.starts_at, row.ends_at),
        previous=previous,
        etag=row.google_etag,
        name=row.name,
        notes=row.notes,
        held=Period(row.starts_at, row.ends_at).widened(row.buffer_before, row.buffer_after),
        calendar_id=row.calendar_id if row.resource_id is not None and row.calendar_id != HOUSE_CALENDAR else None,
        resource_id=row.resource_id,
    )
