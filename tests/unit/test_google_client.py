"""Asking Google Calendar, through its own library, against its stand-in."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.errors import (
    AlreadyExists,
    CircuitOpen,
    CredentialsRefused,
    DeadlineExceeded,
    PreconditionFailed,
    ProviderRefused,
    ProviderThrottled,
    ProviderUnavailable,
    ResourceGone,
)
from app.integrations.breaker import circuits
from app.integrations.google_calendar import BusyPeriod, CalendarEvent, GoogleCalendar, GoogleCalendarCredentials
from app.integrations.google_calendar.client import _token_uri_beside
from sandbox.standins.world import RemoteWorld

CALENDAR = "desk@example.com"
TEN = datetime(2026, 12, 1, 10, tzinfo=UTC)
ELEVEN = TEN + timedelta(hours=1)
NOON = TEN + timedelta(hours=2)
EVENT = "abc123def456"


@pytest.fixture(autouse=True)
def _closed_circuits() -> Iterator[None]:
    circuits.reset()
    yield
    circuits.reset()


@pytest.fixture
def google(world: RemoteWorld) -> GoogleCalendar:
    world.calendar(CALENDAR, timezone="Europe/Berlin")
    world.google_client("client", "secret", "refresh")
    return GoogleCalendar(world.google_url)


@pytest.fixture
def owner(google: GoogleCalendar) -> GoogleCalendarCredentials:
    """A person's consent."""
    return consent()


def consent(**changes: str) -> GoogleCalendarCredentials:
    given = {"refresh_token": "refresh", "client_id": "client", "client_secret": "secret", "calendar_id": CALENDAR}
    return GoogleCalendarCredentials.model_validate({**given, **changes})


def insert(
    google: GoogleCalendar, owner: GoogleCalendarCredentials, event_id: str = EVENT, **more: Any
) -> CalendarEvent:
    return google.insert_event(
        owner,
        event_id=event_id,
        start=TEN,
        end=ELEVEN,
        timezone="Europe/Berlin",
        summary="Cut and color",
        description="",
        private={"booking": "b1"},
        **more,
    )


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
        monkeypatch.setattr("app.integrations.google_calendar.client.PAGE_SIZE", 2)
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


class TestSigningIn:
    def test_one_token_serves_many_calls_and_threads(
        self, google: GoogleCalendar, owner: GoogleCalendarCredentials, world: RemoteWorld
    ) -> None:
        with ThreadPoolExecutor(8) as pool:
            for asked in [pool.submit(google.busy, owner, start=TEN, end=NOON) for _ in range(24)]:
                asked.result()
        assert len(world.requests("google", "issue_token")) == 1

    def test_a_token_that_google_refuses_is_replaced_once(
        self, google: GoogleCalendar, owner: GoogleCalendarCredentials, world: RemoteWorld
    ) -> None:
        google.busy(owner, start=TEN, end=NOON)
        world.expire_tokens()
        insert(google, owner)
        assert len(world.requests("google", "issue_token")) == 2
        assert len(world.events(CALENDAR)) == 1

    def test_a_service_account_signs_in_for_itself_and_for_a_person(
        self, google: GoogleCalendar, world: RemoteWorld
    ) -> None:
        own, delegated = world.service_account(), world.service_account(delegated=True)
        world.calendar(CALENDAR, shared_with=[own["client_email"], "boss@example.com"])
        for account, more in ((own, {}), (delegated, {"subject": "boss@example.com"})):
            credentials = GoogleCalendarCredentials.model_validate(
                {"service_account_json": json.dumps(account), "calendar_id": CALENDAR, **more}
            )
            assert google.busy(credentials, start=TEN, end=NOON) == []

    def test_a_withdrawn_consent_is_refused_with_advice(
        self, google: GoogleCalendar, owner: GoogleCalendarCredentials, world: RemoteWorld
    ) -> None:
        world.revoke(refresh_token="refresh")
        with pytest.raises(CredentialsRefused) as refused:
            google.busy(owner, start=TEN, end=NOON)
        assert (refused.value.provider_code, bool(refused.value.advice)) == ("invalid_grant", True)

    @pytest.mark.parametrize(
        "credentials",
        [
            consent(client_secret="wrong"),
            GoogleCalendarCredentials.model_validate({"channel_token": "t"}),
            GoogleCalendarCredentials.model_validate(
                {
                    "service_account_json": json.dumps(
                        {"type": "service_account", "client_email": "x", "private_key": "no key"}
                    )
                }
            ),
        ],
    )
    def test_credentials_that_cannot_work_are_refused(
        self, google: GoogleCalendar, credentials: GoogleCalendarCredentials
    ) -> None:
        with pytest.raises(CredentialsRefused):
            google.busy(credentials, start=TEN, end=NOON)

    @pytest.mark.parametrize("kind", ["error_500", "cut_before"])
    def test_a_token_endpoint_that_is_down_is_asked_once_and_nothing_was_done(
        self, google: GoogleCalendar, owner: GoogleCalendarCredentials, world: RemoteWorld, kind: str
    ) -> None:
        world.fault("google", kind, operation="issue_token")
        began = time.monotonic()
        with pytest.raises(ProviderUnavailable) as failed:
            insert(google, owner)
        assert not failed.value.maybe_done
        assert time.monotonic() - began < 0.9  # google-auth by itself would sleep three seconds
        assert len(world.requests("google", "issue_token")) == 1

    def test_a_token_endpoint_that_hangs_is_not_waited_for(
        self, google: GoogleCalendar, owner: GoogleCalendarCredentials, world: RemoteWorld
    ) -> None:
        world.fault("google", "hang", operation="issue_token")
        with pytest.raises(DeadlineExceeded) as late:
            insert(google, owner, timeout_seconds=0.3)
        assert not late.value.maybe_done

    @pytest.mark.parametrize(
        ("base", "token_uri"),
        [
            ("https://www.googleapis.com/calendar/v3/", "https://oauth2.googleapis.com/token"),
            ("http://127.0.0.1:9/google/calendar/v3/", "http://127.0.0.1:9/token"),
            ("https://notgoogleapis.com/calendar/v3/", "https://notgoogleapis.com/token"),
        ],
    )
    def test_tokens_come_from_google_or_from_beside_its_stand_in(self, base: str, token_uri: str) -> None:
        assert _token_uri_beside(base) == token_uri


class TestFailures:
    @pytest.mark.parametrize("kind", ["error_500", "error_500_after", "cut_before", "cut_after"])
    def test_an_insert_that_failed_on_the_way_may_have_been_done_and_is_sent_once(
        self, google: GoogleCalendar, owner: GoogleCalendarCredentials, world: RemoteWorld, kind: str
    ) -> None:
        google.busy(owner, start=TEN, end=NOON)  # an idle connection must not be a reason to send again
        world.fault("google", kind, operation="insert_event")
        with pytest.raises(ProviderUnavailable) as failed:
            insert(google, owner)
        assert failed.value.maybe_done
        assert len(world.requests("google", "insert_event")) == 1

    def test_after_any_failure_the_next_answer_is_the_next_ones(
        self, google: GoogleCalendar, owner: GoogleCalendarCredentials, world: RemoteWorld
    ) -> None:
        insert(google, owner)
        world.fault("google", "slow", operation="get_event", times=1, seconds=0.6)
        with pytest.raises(DeadlineExceeded):
            google.get_event(owner, event_id=EVENT, timeout_seconds=0.2)
        time.sleep(0.6)  # by now the late answer has been written to the connection of old
        assert google.busy(owner, start=TEN, end=NOON) == [BusyPeriod(TEN, ELEVEN)]

    def test_a_read_that_failed_has_done_nothing(
        self, google: GoogleCalendar, owner: GoogleCalendarCredentials, world: RemoteWorld
    ) -> None:
        world.fault("google", "error_500")
        with pytest.raises(ProviderUnavailable) as failed:
            google.busy(owner, start=TEN, end=NOON)
        assert not failed.value.maybe_done

    def test_nobody_home_means_that_nothing_was_done(self, google: GoogleCalendar, world: RemoteWorld) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            nobody = GoogleCalendar(f"http://127.0.0.1:{taken.getsockname()[1]}/calendar/v3/")
            with pytest.raises(ProviderUnavailable) as failed:
                insert(nobody, consent(token_uri=world.token_url))
        assert not failed.value.maybe_done

    def test_a_short_time_limit_is_the_callers_and_a_longer_one_googles(
        self, google: GoogleCalendar, owner: GoogleCalendarCredentials, world: RemoteWorld
    ) -> None:
        google.busy(owner, start=TEN, end=NOON)
        world.fault("google", "hang")
        with pytest.raises(DeadlineExceeded) as late:
            insert(google, owner, timeout_seconds=0.2)
        assert late.value.maybe_done
        began = time.monotonic()
        with pytest.raises(ProviderUnavailable):
            google.busy(owner, start=TEN, end=NOON, timeout_seconds=2.0)
        assert 1.9 < time.monotonic() - began < 3

    def test_slower_please_is_no_failure_of_google(
        self, google: GoogleCalendar, owner: GoogleCalendarCredentials, world: RemoteWorld
    ) -> None:
        world.fault("google", "throttle_429", retry_after=9)
        for _ in range(4):
            with pytest.raises(ProviderThrottled) as throttled:
                google.busy(owner, start=TEN, end=NOON)
        assert throttled.value.retry_after == timedelta(seconds=9)

    def test_three_failures_open_the_circuit_of_events_and_not_that_of_free_times(
        self, google: GoogleCalendar, owner: GoogleCalendarCredentials, world: RemoteWorld
    ) -> None:
        world.fault("google", "error_500", operation="list_events")
        for _ in range(3):
            with pytest.raises(ProviderUnavailable):
                google.list_changes(owner, sync_token=None)
        with pytest.raises(CircuitOpen):
            insert(google, owner)
        assert google.busy(owner, start=TEN, end=NOON) == []

    def test_a_calendar_google_cannot_show_is_not_a_free_one(self, google: GoogleCalendar) -> None:
        with pytest.raises(ResourceGone):
            google.busy(consent(calendar_id="nobody@example.com"), start=TEN, end=NOON)

    def test_a_calendar_that_is_not_shared_says_what_to_do(self, google: GoogleCalendar, world: RemoteWorld) -> None:
        world.google_client("narrow", "s", "r", scope="https://www.googleapis.com/auth/calendar.readonly")
        narrow = consent(client_id="narrow", client_secret="s", refresh_token="r")
        with pytest.raises(ProviderRefused) as refused:
            insert(google, narrow)
        assert "Share the calendar" in refused.value.advice

    def test_an_empty_range_is_refused(self, google: GoogleCalendar, owner: GoogleCalendarCredentials) -> None:
        with pytest.raises(ProviderRefused) as refused:
            google.busy(owner, start=NOON, end=TEN)
        assert refused.value.provider_code == "timeRangeEmpty"

    @pytest.mark.parametrize(
        "answer",
        [
            b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n<html/>",
            b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnull",
            b'HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n{"calendars":{}}',
            b'HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{"calendars":',
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd",
            b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
            b"nonsense\r\n\r\n",
        ],
    )
    def test_a_broken_answer_is_googles_failure(
        self, google: GoogleCalendar, world: RemoteWorld, answer: bytes
    ) -> None:
        with answering(answer) as base:
            broken = GoogleCalendar(base)
            with pytest.raises(ProviderUnavailable):
                broken.busy(consent(token_uri=world.token_url), start=TEN, end=NOON, timeout_seconds=2.0)

    @pytest.mark.usefixtures("google")
    def test_an_answer_that_trickles_is_ended_in_time(self, world: RemoteWorld) -> None:
        with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", then=b" " * 40) as base:
            slow = GoogleCalendar(base)
            began = time.monotonic()
            with pytest.raises(DeadlineExceeded):
                slow.busy(consent(token_uri=world.token_url), start=TEN, end=NOON, timeout_seconds=0.5)
            assert time.monotonic() - began < 1.5


class answering:
    """A server that answers one request with the given bytes, then a byte every 0.1 s, then hangs up."""

    def __init__(self, answer: bytes, then: bytes = b"") -> None:
        self._answer, self._then = answer, then
        self._server = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> str:
        self._thread.start()
        return f"http://127.0.0.1:{self._server.getsockname()[1]}/calendar/v3/"

    def __exit__(self, *_: object) -> None:
        self._server.close()
        self._thread.join(timeout=10)

    def _serve(self) -> None:
        connection, _ = self._server.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(self._answer)
            for byte in self._then:
                time.sleep(0.1)
                try:
                    connection.sendall(bytes([byte]))
                except OSError:
                    return
