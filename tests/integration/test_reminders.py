"""The reminder: on the day before, by the local clock, once, and only of an appointment that still is."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import text

from app.services.slots import clocks_show
from tests.bookings import ADA, on, rows
from tests.command_line import CommandLine
from tests.integration.test_booking_daylight_saving import ZONES, move_to, next_change

PLANNED = "SELECT next_attempt_at FROM webhook_delivery_log WHERE type = 'appointment.remind' ORDER BY id"


@pytest.fixture
def at(platform, monkeypatch):
    """Let it be another time for reminders, and look now at those that wait."""

    def let_it_be(moment: datetime) -> None:
        monkeypatch.setattr("app.services.reminders._now", lambda: moment)
        with platform.database.transaction(system=True) as session:
            session.execute(
                text("UPDATE webhook_delivery_log SET next_attempt_at = now() WHERE type = 'appointment.remind'")
            )
            session.execute(text("UPDATE lanes SET due_at = now() WHERE lane_key LIKE 'reminder:%'"))

    return let_it_be


def book(client, business, start: datetime, call_id: str = "c") -> None:
    said = business.tool(client, "book_appointment", call_id=call_id, start=start.isoformat(), name="Ada", phone=ADA)
    assert said.startswith("Booked for"), said


def planned(platform, business) -> list[datetime]:
    with platform.database.transaction(business.id) as session:
        return list(session.scalars(text(PLANNED)))


def notes(platform, business) -> list[str | None]:
    statement = "SELECT coalesce(note, status) FROM webhook_delivery_log WHERE type = 'appointment.remind' ORDER BY id"
    with platform.database.transaction(business.id) as session:
        return list(session.scalars(text(statement)))


def reminders(platform, business) -> list[str]:
    statement = "SELECT body FROM messages WHERE purpose = 'reminder' ORDER BY created_at"
    with platform.database.transaction(business.id) as session:
        return list(session.scalars(text(statement)))


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("forward", [True, False], ids=["forward", "back"])
def test_over_the_change_of_clocks_one_reminder_comes_at_the_right_local_time_and_says_it(
    client, platform, people, world, settle, at, zone, forward
):
    move_to(platform, people.salon, zone)
    day, here = next_change(zone, forward=forward), ZoneInfo(zone)
    start = clocks_show(datetime.combine(day, time(10, 30)), here)
    book(client, people.salon, start)
    (due,) = planned(platform, people.salon)
    assert due.astimezone(here).replace(tzinfo=None) == datetime.combine(day - timedelta(days=1), time(10, 30))
    assert start - due != timedelta(days=1)
    at(due - timedelta(minutes=1))
    settle(lambda: notes(platform, people.salon) == ["retrying"])
    assert reminders(platform, people.salon) == []
    at(due)
    settle(lambda: len(reminders(platform, people.salon)) == 1)
    assert f"{day.day} {day:%B} at 10:30" in reminders(platform, people.salon)[0]
    settle(lambda: len(world.messages()) == 2)
    assert notes(platform, people.salon) == ["processed"]


def test_a_reminder_moves_with_the_appointment_and_what_moved_back_is_told_once(
    client, platform, people, world, settle, at
):
    book(client, people.salon, on(5, 10))
    for number, hour in enumerate((12, 10)):
        said = people.salon.tool(
            client, "reschedule_appointment", call_id=f"m{number}", phone=ADA, new_start=on(5, hour).isoformat()
        )
        assert said.startswith("Moved to")
    assert planned(platform, people.salon) == [on(4, 10), on(4, 12), on(4, 10)]
    at(on(4, 12))
    settle(lambda: notes(platform, people.salon)[1] == "the appointment has another time now")
    settle(lambda: "retrying" not in notes(platform, people.salon))
    assert len(reminders(platform, people.salon)) == 1
    assert "at 10:00" in reminders(platform, people.salon)[0]


def test_nobody_is_reminded_of_what_is_cancelled_or_was_just_booked_or_after_stop(
    app, client, platform, people, world, settle, at
):
    CommandLine(app).data("org", "set", people.dental.id, "--quiet", "")
    book(client, people.dental, datetime.now(UTC).replace(microsecond=0, second=0, minute=0) + timedelta(hours=25))
    assert planned(platform, people.dental) == []
    book(client, people.salon, on(5, 10), "one")
    people.salon.tool(client, "cancel_appointment", call_id="two", phone=ADA)
    book(client, people.salon, on(6, 10), "three")
    people.salon.text(client, ADA, "STOP")
    at(on(5, 10))
    settle(lambda: notes(platform, people.salon) == ["the appointment is no more", "processed"])
    with platform.database.transaction(people.salon.id) as session:
        refused = session.execute(text("SELECT status FROM messages WHERE purpose = 'reminder'")).scalars().all()
    assert refused == ["refused"]
    assert [row.status for row in rows(platform, people.salon)] == ["cancelled", "booked"]


def test_a_late_reminder_waits_for_the_morning_and_without_reminders_nobody_gets_one(
    app, client, platform, people, world, settle, at
):
    book(client, people.salon, on(5, 14))
    at(on(4, 23))
    settle(lambda: notes(platform, people.salon) == ["retrying"])
    (due,) = planned(platform, people.salon)
    assert timedelta(hours=8) < due - datetime.now(UTC) <= timedelta(hours=9)  # it is quiet until eight
    CommandLine(app).data("org", "set", people.salon.id, "--no-reminders")
    at(on(5, 9))
    settle(lambda: notes(platform, people.salon) == ["nobody is to be reminded"])
    book(client, people.salon, on(7, 14), "later")
    assert len(planned(platform, people.salon)) == 1
