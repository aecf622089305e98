"""What is done in Google Calendar, through its own library, against its stand-in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from app.errors import (
    AlreadyExists,
    PreconditionFailed,
    ResourceGone,
)
from app.integrations.google_calendar import BusyPeriod, GoogleCalendar, GoogleCalendarCredentials
from sandbox.standins.world import RemoteWorld
from tests.google_calendar import CALENDAR, ELEVEN, EVENT, NOON, TEN, insert


class TestOperations:
    def test_an_event_is_inserted_read_moved_and_deleted(
        self, google: GoogleCalendar, owner: GoogleCalendarCredentials
    ) -> None:
        made = insert(google, owner)
        assert (made.id, made.status, made.start, made.end) == (EVENT, "confirmed", TEN, ELEVEN)
        assert made.private == {"booking": "b1"}
        assert google.get_event(owner, event_id=EVENT) == made
        moved = google.move_event(owner, event_id=EVENT, start=ELEVEN, end=NOON, etag=made.etag)
        assert (moved.start, moved.end, moved.private) == (ELEVEN, NOON, {"booking": "b1"})
        assert moved.etag != made.etag
        google.delete_event(owner, event_id=EVENT)
        assert google.get_event(owner, event_id=EVENT).status == "cancelled"

    def test_busy_shows_what_keeps_somebody_busy(
        self, google: GoogleCalendar, owner: GoogleCalendarCredentials, world: RemoteWorld
    ) -> None:
        insert(google, owner)
        world.insert_foreign_event(CALENDAR, NOON, NOON + timedelta(hours=1), transparency="transparent")
        assert google.busy(owner, start=TEN - timedelta(hours=5), end=NOON + timedelta(days=1)) == [
            BusyPeriod(TEN, ELEVEN)
        ]

    def test_an_id_is_used_once_even_by_an_event_that_was_deleted(
        self, google: GoogleCalendar, owner: GoogleCalendarCredentials
    ) -> None:
        insert(google, owner)
        with pytest.raises(AlreadyExists):
            insert(google, owner)
        google.delete_event(owner, event_id=EVENT)
        with pytest.raises(AlreadyExists):
            insert(google, owner)

    def test_what_is_gone_already_is_deleted(self, google: GoogleCalendar, owner: GoogleCalendarCredentials) -> None:
        insert(google, owner)
        for _ in range(2):
            google.delete_event(owner, event_id=EVENT)
        google.delete_event(owner, event_id="neverwasthere")
        assert google.get_event(owner, event_id=EVENT).status == "cancelled"

    def test_an_event_that_somebody_changed_is_not_moved_over_their_head(
        self, google: GoogleCalendar, owner: GoogleCalendarCredentials, world: RemoteWorld
    ) -> None:
        made = insert(google, owner)
        world.move_event(CALENDAR, EVENT, NOON, NOON + timedelta(hours=1))
        with pytest.raises(PreconditionFailed):
            google.move_event(owner, event_id=EVENT, start=ELEVEN, end=NOON, etag=made.etag)

    def test_a_deleted_event_cannot_be_moved(
        self, google: GoogleCalendar, owner: GoogleCalendarCredentials, world: RemoteWorld
    ) -> None:
        insert(google, owner)
        world.delete_event(CALENDAR, EVENT)
        for event_id in (EVENT, "neverwasthere"):
            with pytest.raises(ResourceGone):
                google.move_event(owner, event_id=event_id, start=ELEVEN, end=NOON)
        with pytest.raises(ResourceGone):
            google.get_event(owner, event_id="neverwasthere")

    def test_an_event_made_an_all_day_one_is_given_a_time_again(
        self, google: GoogleCalendar, owner: GoogleCalendarCredentials, world: RemoteWorld
    ) -> None:
        insert(google, owner)
        world.move_event(CALENDAR, EVENT, TEN.date(), TEN.date() + timedelta(days=1))
        assert google.get_event(owner, event_id=EVENT).all_day
        assert google.move_event(owner, event_id=EVENT, start=ELEVEN, end=NOON).start == ELEVEN

    def test_a_naive_time_is_refused(self, google: GoogleCalendar, owner: GoogleCalendarCredentials) -> None:
        with pytest.raises(ValueError, match="naive"):
            google.busy(owner, start=TEN.replace(tzinfo=None), end=NOON)

    def test_changes_come_page_by_page_then_only_what_is_new(
        self,
        google: GoogleCalendar,
        owner: GoogleCalendarCredentials,
        world: RemoteWorld,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("app.integrations.google_calendar.changes.PAGE_SIZE", 2)
        ids = {insert(google, owner, f"event{number}").id for number in range(5)}
        everything = google.list_changes(owner, sync_token=None)
        assert {event.id for event in everything.events} == ids
        assert len(world.requests("google", "list_events")) == 3
        world.delete_event(CALENDAR, "event3")
        world.insert_foreign_event(CALENDAR, TEN.date(), TEN.date() + timedelta(days=1))
        changes = google.list_changes(owner, sync_token=everything.next_sync_token)
        deleted = next(event for event in changes.events if event.id == "event3")
        [foreign] = [event for event in changes.events if event.id != "event3"]
        assert deleted.status == "cancelled"
        assert (foreign.start, foreign.all_day) == (datetime(2026, 11, 30, 23, tzinfo=UTC), True)

    def test_an_expired_sync_token_is_gone(
        self, google: GoogleCalendar, owner: GoogleCalendarCredentials, world: RemoteWorld
    ) -> None:
        token = google.list_changes(owner, sync_token=None).next_sync_token
        world.expire_sync_tokens(CALENDAR)
        with pytest.raises(ResourceGone):
            google.list_changes(owner, sync_token=token)
