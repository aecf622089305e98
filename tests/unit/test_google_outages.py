"""Google Calendar in trouble: what is tried again, what is not, and when nobody waits any longer."""

from __future__ import annotations

import socket
import threading
import time
from datetime import timedelta

import pytest

from app.errors import (
    CircuitOpen,
    DeadlineExceeded,
    ProviderRefused,
    ProviderThrottled,
    ProviderUnavailable,
    ResourceGone,
)
from app.integrations.google_calendar import BusyPeriod, GoogleCalendar, GoogleCalendarCredentials
from sandbox.standins.world import RemoteWorld
from tests.google_calendar import ELEVEN, EVENT, NOON, TEN, consent, insert


@pytest.mark.usefixtures("google")
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
