"""Brings the calendar in line with an appointment's row, from wherever an earlier try ended.

Owns the order: read the row, call Google with no transaction open, write what came of it. Two may
do it at once (a caller's thread and the finisher): ids derived from the row make their inserts one
event, and the row under lock decides who sends the text.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.errors import (
    AlreadyExists,
    NotFound,
    PreconditionFailed,
    ResourceGone,
    SlotTaken,
    TemporaryFailure,
)
from app.integrations.deadline import Deadline
from app.integrations.google_calendar import CalendarEvent, GoogleCalendarCredentials
from app.integrations.retrying import with_retries
from app.models import appointments as rows
from app.models.appointments import Appointment, AppointmentStatus, CalendarAction
from app.services import texts
from app.services.appointments import offer, plan_finish, text_customer
from app.services.slots import Period

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.services.directory import Business
    from app.services.platform import Platform

MOST_ROUNDS = 6
TRY_SECONDS = 10.0
TRY_SECONDS_WAITING = 2.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The row as it was when the calendar was asked, detached."""

    id: UUID
    action: str
    version: int
    event_id: str
    begun_before: bool
    period: Period
    previous: Period | None
    etag: str | None
    name: str
    notes: str | None
    phone: str | None


@dataclass(frozen=True, slots=True)
class Pusher:
    """One push of one appointment. ``confirm`` is asked before each effect; ``deadline`` is a waiting caller's."""

    platform: Platform
    business: Business
    deadline: Deadline | None = None
    confirm: Callable[[], None] = lambda: None

    def push(self, appointment_id: UUID) -> Appointment:
        """Do what the calendar does not know yet; return the row as it then is. Safe to repeat.

        Raises a TemporaryFailure when Google cannot be reached in time: the row keeps what is to be done.
        """
        for _ in range(MOST_ROUNDS):
            if self._patiently(appointment_id):
                return self._read(appointment_id)
        raise TemporaryFailure("the appointment keeps changing", code="busy_row")

    def _patiently(self, appointment_id: UUID) -> bool:
        """One step, tried again soon while a caller's time allows it; a worker's next try is a date in its row.

        Repeating is safe: a step begins by reading what an earlier one has achieved.
        """
        if self.deadline is None:
            return self._step(appointment_id)
        return with_retries(lambda: self._step(appointment_id), deadline=self.deadline, idempotent=True)

    def _step(self, appointment_id: UUID) -> bool:
        """One thing that the calendar does not know yet; True when there is none left."""
        snapshot = self._begin(appointment_id)
        if snapshot is None:
            return True
        credentials = self._credentials()
        if credentials is None:
            self._settle(snapshot, None)
        elif snapshot.action == CalendarAction.CREATE:
            self._create(credentials, snapshot)
        elif snapshot.action == CalendarAction.MOVE:
            self._move(credentials, snapshot)
        else:
            self._delete(credentials, snapshot)
        return False

    # --- what is asked of Google ------------------------------------------------------------------

    def _create(self, credentials: GoogleCalendarCredentials, snapshot: Snapshot) -> None:
        google = self.platform.google
        # An earlier try, or another thread just now, may have done it: look before doing it again.
        if snapshot.begun_before and self._settle_existing(credentials, snapshot):
            return
        if any(busy.overlaps(snapshot.period) for busy in self._busy(credentials, snapshot.period)):
            if not self._settle_existing(credentials, snapshot):
                self._lose_slot(credentials, snapshot)
            return
        self.confirm()
        try:
            event = google.insert_event(
                credentials,
                event_id=snapshot.event_id,
                start=snapshot.period.start,
                end=snapshot.period.end,
                timezone=self.business.timezone,
                summary=snapshot.name,
                description=snapshot.notes or "",
                private={"voicedesk_appointment": str(snapshot.id)},
                timeout_seconds=self._time(),
            )
        except AlreadyExists:
            event = google.get_event(credentials, event_id=snapshot.event_id, timeout_seconds=self._time())
            self._settle_found(snapshot, event)
            return
        self._settle(snapshot, event)

    def _settle_existing(self, credentials: GoogleCalendarCredentials, snapshot: Snapshot) -> bool:
        """Whether an event with our id was there, and has been settled."""
        try:
            found = self.platform.google.get_event(
                credentials, event_id=snapshot.event_id, timeout_seconds=self._time()
            )
        except ResourceGone:
            return False
        self._settle_found(snapshot, found)
        return True

    def _settle_found(self, snapshot: Snapshot, event: CalendarEvent) -> None:
        """An event with our id: ours if it lives; if somebody deleted it, its id is used up for ever."""
        if event.status == "cancelled":
            self._new_creation(snapshot)
        else:
            self._settle(snapshot, event)

    def _move(self, credentials: GoogleCalendarCredentials, snapshot: Snapshot) -> None:
        google = self.platform.google
        own = snapshot.previous or snapshot.period
        others = [piece for busy in self._busy(credentials, snapshot.period) for piece in busy.without(own)]
        if any(other.overlaps(snapshot.period) for other in others):
            self._move_back(snapshot)
            return
        self.confirm()
        try:
            try:
                event = self._patch(credentials, snapshot, snapshot.etag)
            except PreconditionFailed:  # somebody edited it meanwhile; the customer's new time still holds
                fresh = google.get_event(credentials, event_id=snapshot.event_id, timeout_seconds=self._time())
                event = self._patch(credentials, snapshot, fresh.etag)
        except ResourceGone:
            self._new_creation(snapshot)
            return
        self._settle(snapshot, event)

    def _patch(self, credentials: GoogleCalendarCredentials, snapshot: Snapshot, etag: str | None) -> CalendarEvent:
        return self.platform.google.move_event(
            credentials,
            event_id=snapshot.event_id,
            start=snapshot.period.start,
            end=snapshot.period.end,
            etag=etag,
            timeout_seconds=self._time(),
        )

    def _delete(self, credentials: GoogleCalendarCredentials, snapshot: Snapshot) -> None:
        if snapshot.begun_before:
            self.confirm()
            self.platform.google.delete_event(credentials, event_id=snapshot.event_id, timeout_seconds=self._time())
        self._settle(snapshot, None)

    def _busy(self, credentials: GoogleCalendarCredentials, period: Period) -> list[Period]:
        found = self.platform.google.busy(credentials, start=period.start, end=period.end, timeout_seconds=self._time())
        return [Period(busy.start, busy.end) for busy in found]

    def _time(self) -> float:
        return self.deadline.try_timeout(TRY_SECONDS_WAITING) if self.deadline else TRY_SECONDS

    def _credentials(self) -> GoogleCalendarCredentials | None:
        try:
            credentials = self.platform.directory.integration(self.business.id, "google-calendar").credentials
        except NotFound:
            return None  # no calendar is connected: the row is the calendar
        assert isinstance(credentials, GoogleCalendarCredentials)
        return credentials

    # --- what is written of it --------------------------------------------------------------------

    def _begin(self, appointment_id: UUID) -> Snapshot | None:
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

    def _read(self, appointment_id: UUID) -> Appointment:
        with self.platform.database.transaction(self.business.id) as session:
            row = rows.find_appointment(session, self.business.id, appointment_id)
            if row is None:
                raise NotFound("no such appointment")
            return row

    def _settle(self, snapshot: Snapshot, event: CalendarEvent | None) -> None:
        """Google has done it: say so in the row, unless people have decided otherwise in the meantime."""
        with self.platform.database.transaction(self.business.id) as session:
            row = rows.lock_appointment(session, self.business.id, snapshot.id)
            if row is None:
                return
            if event is not None:
                row.google_event_id, row.google_etag = event.id, event.etag
            if row.status == AppointmentStatus.CANCELLED:
                self._settle_cancelled(session, row, snapshot)
                return
            if row.status == AppointmentStatus.FAILED:
                return
            row.status = AppointmentStatus.BOOKED
            if row.version != snapshot.version:  # moved while we were away; what Google has now is the old time
                row.calendar_action = CalendarAction.MOVE
                row.previous_starts_at, row.previous_ends_at = snapshot.period.start, snapshot.period.end
                return
            moved = snapshot.action == CalendarAction.MOVE
            row.calendar_action = row.previous_starts_at = row.previous_ends_at = None
            body = texts.confirmation(self.business.name, snapshot.period, self._zone, moved=moved)
            text_customer(session, row, body, purpose="confirmation")
        self.platform.bell.ring()

    def _settle_cancelled(self, session: Session, row: Appointment, snapshot: Snapshot) -> None:
        if snapshot.action == CalendarAction.DELETE:
            row.calendar_action = None
        else:  # our insert came after the cancellation: the event has to go again
            row.calendar_action = CalendarAction.DELETE
            plan_finish(session, row, after=timedelta(0))

    def _new_creation(self, snapshot: Snapshot) -> None:
        with self.platform.database.transaction(self.business.id) as session:
            row = rows.lock_appointment(session, self.business.id, snapshot.id)
            if row is None or row.event_id != snapshot.event_id or row.status == AppointmentStatus.CANCELLED:
                return
            row.creations += 1
            row.creation_begun = False
            row.google_event_id = row.google_etag = None
            row.calendar_action = CalendarAction.CREATE

    def _lose_slot(self, credentials: GoogleCalendarCredentials, snapshot: Snapshot) -> None:
        """Somebody else has the time in the calendar. Raises SlotTaken to a caller who waits; else texts."""
        alternatives = self._alternatives(credentials, snapshot.period.start)
        with self.platform.database.transaction(self.business.id) as session:
            row = rows.lock_appointment(session, self.business.id, snapshot.id)
            if row is None or row.version != snapshot.version or row.status != AppointmentStatus.PENDING:
                return
            row.status = AppointmentStatus.FAILED
            row.calendar_action = None
            row.failure = "slot_taken"
            told_on_the_line = self.deadline is not None and not row.promised_text
            if not told_on_the_line:
                body = texts.slot_gone(self.business.name, snapshot.period, alternatives, self._zone)
                text_customer(session, row, body, purpose="slot_gone")
        self.platform.bell.ring()
        if self.deadline is not None:
            raise SlotTaken

    def _move_back(self, snapshot: Snapshot) -> None:
        """The new time is taken in the calendar: the old one stands again, if nobody has it by now."""
        assert snapshot.previous is not None
        try:
            with self.platform.database.transaction(self.business.id) as session:
                row = rows.lock_appointment(session, self.business.id, snapshot.id)
                if row is None or row.version != snapshot.version:
                    return
                row.starts_at, row.ends_at = snapshot.previous.start, snapshot.previous.end
                row.calendar_action = row.previous_starts_at = row.previous_ends_at = None
                row.version += 1
                session.flush()
                if self.deadline is None or row.promised_text:
                    body = texts.move_failed(self.business.name, snapshot.period, snapshot.previous, self._zone)
                    text_customer(session, row, body, purpose="move_failed")
        except IntegrityError:
            with self.platform.database.transaction(self.business.id) as session:
                row = rows.lock_appointment(session, self.business.id, snapshot.id)
                if row is not None and row.version == snapshot.version:
                    # Its event keeps the old time and a new booking holds it too: a person must decide.
                    row.external_conflict = True
                    row.calendar_action = None
                    row.failure = "move_failed"
        self.platform.bell.ring()
        if self.deadline is not None:
            raise SlotTaken

    def _alternatives(self, credentials: GoogleCalendarCredentials, start: datetime) -> list[Period]:
        try:
            busy = self._busy(credentials, Period(start, start + timedelta(days=7)))
        except TemporaryFailure:
            return []
        return offer(self.platform, self.business, busy, start=start, end=start + timedelta(days=7))

    @property
    def _zone(self) -> ZoneInfo:
        return ZoneInfo(self.business.timezone)


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
        period=Period(row.starts_at, row.ends_at),
        previous=previous,
        etag=row.google_etag,
        name=row.name,
        notes=row.notes,
        phone=row.phone,
    )
