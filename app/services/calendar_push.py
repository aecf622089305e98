"""Brings the calendar in line with an appointment's row, from wherever an earlier try ended.

Owns the order: read the row, call Google with no transaction open, write what came of it. Two may
do it at once (a caller's thread and the finisher): ids derived from the row make their inserts one
event, and the row under lock decides who sends the text (``calendar_outcomes.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from app.errors import (
    AlreadyExists,
    InvalidInput,
    NotFound,
    PermanentFailure,
    PreconditionFailed,
    ProviderThrottled,
    ResourceGone,
    SlotTaken,
    TemporaryFailure,
)
from app.integrations.deadline import Deadline
from app.integrations.google_calendar import CalendarEvent, GoogleCalendarCredentials
from app.integrations.retrying import with_retries
from app.models.appointments import Appointment, CalendarAction
from app.services import offers, turns
from app.services.availability import TRY_SECONDS_WAITING
from app.services.calendar_outcomes import Outcomes, Snapshot, period_of
from app.services.slots import Period

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.services.directory import Business
    from app.services.platform import Platform

MOST_ROUNDS = 6
TRY_SECONDS = 10.0
ALTERNATIVES, ALTERNATIVE_DAYS = 3, 7


@dataclass(frozen=True, slots=True)
class Pusher:
    """One push of one appointment. ``confirm`` is asked before each effect; ``deadline`` is a waiting caller's."""

    platform: Platform
    business: Business
    deadline: Deadline | None = None
    confirm: Callable[[], None] = lambda: None

    def push(self, appointment_id: UUID) -> Appointment:
        """Do what the calendar does not know yet; return the row as it then is. Safe to repeat.

        Raises a TemporaryFailure when Google cannot be reached in time: the row keeps what is to be done;
        a PermanentFailure when Google refuses for good: then the slot is no longer held.
        """
        for _ in range(MOST_ROUNDS):
            if self._patiently(appointment_id):
                return self._outcomes.read(appointment_id)
        raise TemporaryFailure("the appointment keeps changing", code="busy_row")

    def _patiently(self, appointment_id: UUID) -> bool:
        """One step, tried again soon while a caller's time allows it; a worker's next try is a date in its row.

        Repeating is safe: a step begins by reading what an earlier one has achieved.
        """
        if self.deadline is None:
            return self._step(appointment_id)
        return with_retries(lambda: self._step(appointment_id), deadline=self.deadline, idempotent=True)

    def _step(self, appointment_id: UUID) -> bool:
        """One thing that the calendar does not know yet; True when there is none left to do now."""
        snapshot = self._outcomes.begin(appointment_id)
        if snapshot is None:
            return True
        try:
            return self._do(snapshot)
        except SlotTaken:
            raise
        except PermanentFailure as error:
            self._outcomes.give_up(snapshot, error.code)
            raise

    def _do(self, snapshot: Snapshot) -> bool:
        found = self._credentials(snapshot)
        if found is None:
            self._outcomes.done(snapshot, None)
            return False
        integration_id, credentials = found
        waiting = self.deadline is not None
        turns.take_for_change(self.platform, integration_id, credentials, snapshot.id, waiting=waiting)
        try:
            return self._ask(credentials, snapshot)
        except ProviderThrottled as error:
            turns.change_was_throttled(self.platform, integration_id, error)
            raise

    def _ask(self, credentials: GoogleCalendarCredentials, snapshot: Snapshot) -> bool:
        if snapshot.action == CalendarAction.CREATE:
            self._create(credentials, snapshot)
        elif snapshot.action == CalendarAction.MOVE:
            self._move(credentials, snapshot)
        else:
            return self._delete(credentials, snapshot)
        return False

    def give_up(self, appointment_id: UUID, failure: str) -> None:
        """The last try has failed: hold nothing any longer. Raises NotFound."""
        snapshot = self._outcomes.begin(appointment_id)
        if snapshot is not None:
            self._outcomes.give_up(snapshot, failure)

    # --- what is asked of Google ------------------------------------------------------------------

    def _create(self, credentials: GoogleCalendarCredentials, snapshot: Snapshot) -> None:
        google = self.platform.google
        # An earlier try, or another thread just now, may have done it: look before doing it again.
        if snapshot.begun_before and self._settle_existing(credentials, snapshot):
            return
        passed = snapshot.period.start <= datetime.now(UTC)  # finished too late to be of use to anybody
        if passed or any(busy.overlaps(snapshot.held) for busy in self._busy(credentials, snapshot)):
            if not self._settle_existing(credentials, snapshot):
                self._lose_slot(snapshot)
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
        self._outcomes.done(snapshot, event)

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
            self._outcomes.new_creation(snapshot)
        else:
            self._outcomes.done(snapshot, event)

    def _move(self, credentials: GoogleCalendarCredentials, snapshot: Snapshot) -> None:
        google, outcomes = self.platform.google, self._outcomes
        etag = snapshot.etag
        try:
            busy = self._busy(credentials, snapshot)
            if _is_taken(busy, snapshot.held, own=snapshot.previous or snapshot.period):
                # What keeps the new time busy may be our own event: an earlier try may have got through.
                event = google.get_event(credentials, event_id=snapshot.event_id, timeout_seconds=self._time())
                now_at = period_of(event)
                if now_at is None:
                    outcomes.new_creation(snapshot)
                    return
                if now_at == snapshot.period:
                    outcomes.done(snapshot, event)
                    return
                if _is_taken(busy, snapshot.held, own=now_at):
                    self._move_back(snapshot, now_at)
                    return
                etag = event.etag
            self.confirm()
            try:
                event = self._patch(credentials, snapshot, etag)
            except PreconditionFailed:  # somebody edited it meanwhile; the customer's new time still holds
                event = self._patch_anew(credentials, snapshot)
        except ResourceGone:
            outcomes.new_creation(snapshot)
            return
        outcomes.done(snapshot, event)

    def _patch(self, credentials: GoogleCalendarCredentials, snapshot: Snapshot, etag: str | None) -> CalendarEvent:
        return self.platform.google.move_event(
            credentials,
            event_id=snapshot.event_id,
            start=snapshot.period.start,
            end=snapshot.period.end,
            etag=etag,
            timeout_seconds=self._time(),
        )

    def _patch_anew(self, credentials: GoogleCalendarCredentials, snapshot: Snapshot) -> CalendarEvent:
        """The same on what the event is now, unless another of us has done it. Raises TemporaryFailure for a race."""
        fresh = self.platform.google.get_event(credentials, event_id=snapshot.event_id, timeout_seconds=self._time())
        now_at = period_of(fresh)
        if now_at is not None and now_at.is_about(snapshot.period):
            return fresh
        try:
            return self._patch(credentials, snapshot, fresh.etag)
        except PreconditionFailed:
            raise TemporaryFailure("the event keeps changing", code="busy_event") from None

    def _delete(self, credentials: GoogleCalendarCredentials, snapshot: Snapshot) -> bool:
        """Delete the event, if there may be one; True when that is left for the finisher to do again.

        An insert that Google never confirmed may still be under way: then "not there" is not the last word
        while the caller is on the line.
        """
        if snapshot.begun_before:
            self.confirm()
            self.platform.google.delete_event(credentials, event_id=snapshot.event_id, timeout_seconds=self._time())
            if self.deadline is not None and not snapshot.confirmed:
                return True
        self._outcomes.done(snapshot, None)
        return False

    def _busy(self, credentials: GoogleCalendarCredentials, snapshot: Snapshot) -> list[Period]:
        """When others keep the time busy, or it itself; not those who are booked beside it in the same calendar."""
        held = snapshot.held
        found = self.platform.google.busy(credentials, start=held.start, end=held.end, timeout_seconds=self._time())
        return offers.without_ours(
            self.platform,
            self.business,
            credentials.calendar_id,
            [Period(busy.start, busy.end) for busy in found],
            held,
            except_for=snapshot.id,
        )

    def _time(self) -> float:
        return self.deadline.try_timeout(TRY_SECONDS_WAITING) if self.deadline else TRY_SECONDS

    def _credentials(self, snapshot: Snapshot) -> tuple[UUID, GoogleCalendarCredentials] | None:
        try:
            endpoint = self.platform.directory.integration(self.business.id, "google-calendar")
        except NotFound:
            return None  # no calendar is connected: the row is the calendar
        credentials = endpoint.credentials
        assert isinstance(credentials, GoogleCalendarCredentials)
        calendar_id = snapshot.calendar_id or credentials.calendar_id
        return endpoint.integration_id, credentials.model_copy(update={"calendar_id": calendar_id})

    def _lose_slot(self, snapshot: Snapshot) -> None:
        """Somebody else has the time in the calendar. Raises SlotTaken to a caller who waits; else texts."""
        lost = self._outcomes.lose_slot(snapshot, self._alternatives(snapshot))
        if lost and self.deadline is not None:
            raise SlotTaken

    def _move_back(self, snapshot: Snapshot, kept: Period) -> None:
        """The new time is taken in the calendar. Raises SlotTaken to a caller who waits; else texts."""
        if self._outcomes.move_back(snapshot, kept) and self.deadline is not None:
            raise SlotTaken

    def _alternatives(self, snapshot: Snapshot) -> list[Period]:
        start = max(snapshot.period.start, datetime.now(UTC))
        end = start + timedelta(days=ALTERNATIVE_DAYS)
        row = self._outcomes.read(snapshot.id)
        rules = offers.rules_of(self.platform, self.business)
        service = rules.service_of(row)
        try:
            wish = offers.Wish(rules, service, rules.places_of(row, service, None))
            deadline = self.deadline or Deadline.within(TRY_SECONDS)
            found = offers.find(
                self.platform, self.business, wish, start=start, end=end, most=ALTERNATIVES, deadline=deadline
            )
        except (TemporaryFailure, InvalidInput):
            return []
        return found.slots

    @property
    def _outcomes(self) -> Outcomes:
        return Outcomes(self.platform, self.business, waiting=self.deadline is not None)


def _is_taken(busy: list[Period], wanted: Period, *, own: Period) -> bool:
    """Whether somebody else keeps the time busy: what ``own`` covers is the appointment itself."""
    return any(piece.overlaps(wanted) for period in busy for piece in period.without(own))
