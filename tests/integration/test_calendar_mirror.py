"""While Google is away its mirror answers: inside the deadline, with times that avoid what people have there."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest

from app.integrations.breaker import circuits
from app.services import calendar_sync
from tests.calendars import Desk
from tests.integration.test_booking import ADA, appointments, tomorrow


@pytest.fixture
def desk(platform, world, people, client, settle) -> Desk:
    """North Street Salon's calendar, mirrored; somebody is busy from nine to twelve."""
    desk = Desk(platform, world, people.salon, client, settle)
    desk.enter(9, 12)
    calendar_sync.tend(platform)
    settle(lambda: desk.busy() and desk.at_rest())
    return desk


def ask(desk: Desk) -> tuple[str, float]:
    """Which times are free from eight to fourteen, and how long the answer took."""
    began = time.monotonic()
    said = desk.business.tool(
        desk.client,
        "check_availability",
        call_id="call",
        tool_call_id=f"t{began}",
        start=tomorrow(8).isoformat(),
        end=tomorrow(14).isoformat(),
    )
    return said, time.monotonic() - began


def sources(desk: Desk) -> list[str | None]:
    return [row[0] for row in desk.all("SELECT calendar_source FROM tool_answers ORDER BY started_at")]


def test_with_google_hanging_the_answer_comes_in_time_and_avoids_what_is_mirrored(desk):
    said, _ = ask(desk)
    desk.world.fault("google", "hang")
    mirrored, seconds = ask(desk)
    assert seconds < desk.platform.settings.tool_deadline_seconds - 1
    assert mirrored == said
    assert tomorrow(8, 30).isoformat() in mirrored
    assert tomorrow(12).isoformat() in mirrored
    assert tomorrow(9).isoformat() not in mirrored
    desk.settle(lambda: sources(desk) == ["google", "mirror"])


def test_with_the_circuit_open_google_is_not_asked_and_the_mirror_answers(desk):
    desk.world.fault("google", "error_500", operation="query_freebusy")
    for _ in range(3):
        assert "Free times" in ask(desk)[0]
    assert {state.name: state.state for state in circuits.states()}["google_calendar_freebusy"] == "open"
    asked = len(desk.world.requests("google", "query_freebusy"))
    said, seconds = ask(desk)
    assert "Free times" in said
    assert seconds < 1
    assert len(desk.world.requests("google", "query_freebusy")) == asked


def test_with_credentials_refused_the_mirror_answers(desk):
    desk.world.revoke(email="owner@example.com")
    desk.world.expire_tokens()
    said, _ = ask(desk)
    assert tomorrow(12).isoformat() in said
    desk.settle(lambda: sources(desk) == ["mirror"])


@pytest.mark.parametrize(
    "change",
    [
        "synced_at = now() - interval '25 hours'",
        "mirrored_until = now()",
        "calendar_id = 'another@example.com'",
    ],
)
def test_a_mirror_that_cannot_know_is_not_believed(desk, change):
    desk.all(f"UPDATE calendar_syncs SET {change} RETURNING 1")
    desk.world.fault("google", "error_500", operation="query_freebusy")
    said, seconds = ask(desk)
    assert "I can't reach the calendar just now" in said
    assert seconds < desk.platform.settings.tool_deadline_seconds


def test_what_is_booked_on_the_mirrors_word_is_noted_and_confirmed_when_google_is_back(desk):
    desk.world.fault("google", "error_500")
    assert "Free times" in ask(desk)[0]
    said = desk.business.tool(
        desk.client, "book_appointment", call_id="c", start=tomorrow(13).isoformat(), name="Ada", phone=ADA
    )
    assert "I've noted" in said
    assert [row.status for row in appointments(desk.platform, desk.business)] == ["pending"]


def test_the_mirror_holds_times_and_nothing_about_anybody(desk):
    desk.enter(15, 16, summary="Grandma's secret", attendees=[{"email": "grandma@example.com"}])
    calendar_sync.request_now(desk.platform, desk.business.id)
    desk.settle(lambda: len(desk.busy()) == 2, seconds=20)
    kept = str(
        desk.all("SELECT row_to_json(b) FROM busy_periods b") + desk.all("SELECT row_to_json(s) FROM calendar_syncs s")
    )
    assert "randma" not in kept
    assert timedelta(hours=1) in [end - start for start, end in desk.busy()]
