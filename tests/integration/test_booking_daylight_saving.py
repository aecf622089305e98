"""Bookings on the days when the clocks change, from the question to the calendar and the text."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import text

from app.services import free_times
from app.services.slots import local_moment, midnight
from tests.command_line import CommandLine

ADA = "+4915112345678"
ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe")


def next_change(name: str, *, forward: bool) -> date:
    """The next local day, after tomorrow, on which the clocks go forward or back."""
    zone = ZoneInfo(name)
    day = datetime.now(zone).date() + timedelta(days=2)
    while True:
        length = midnight(day + timedelta(days=1), zone) - midnight(day, zone)
        if length != timedelta(days=1) and (length < timedelta(days=1)) == forward:
            return day
        day += timedelta(days=1)


def move_to(platform, business, zone: str) -> None:
    with platform.database.transaction(system=True) as session:
        session.execute(
            text("UPDATE organizations SET timezone = :zone WHERE id = :id"), {"zone": zone, "id": business.id}
        )
    platform.directory.forget()


def sent(platform, business):
    with platform.database.transaction(business.id) as session:
        return list(session.scalars(text("SELECT body FROM messages WHERE direction = 'outbound' ORDER BY created_at")))


def moments_of(slots: list[dict[str, str]]) -> list[datetime]:
    return [datetime.fromisoformat(slot["starts_at"]) for slot in slots]


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("forward", [True, False], ids=["forward", "back"])
def test_every_time_that_is_offered_exists_comes_once_and_can_be_booked_as_it_is_said(
    client, platform, people, world, zone, forward
):
    move_to(platform, people.salon, zone)
    day, here = next_change(zone, forward=forward), ZoneInfo(zone)
    offered = free_times.free_times(platform, people.salon.id, first=day, days=1)
    moments = moments_of(offered["slots"])
    walls = [moment.astimezone(here).replace(tzinfo=None) for moment in moments]
    assert len(set(walls)) == len(walls) == len(set(moments))
    expected = [
        datetime.combine(day, time.min) + timedelta(minutes=30 * number)
        for number in range(47)  # the day closes at 23:59
    ]
    assert walls == [wall for wall in expected if local_moment(wall, here) is not None]
    night = [(moment, wall) for moment, wall in zip(moments, walls, strict=True) if wall.hour < 4]
    for number, (moment, wall) in enumerate(night):
        said = people.salon.tool(
            client, "book_appointment", call_id=f"c{number}", start=wall.isoformat(), name="Ada", phone=ADA
        )
        assert said.startswith("Booked for"), said
        assert f"at {wall:%H:%M}" in said
        assert moment == local_moment(wall, here)
    booked = sorted(datetime.fromisoformat(one["start"]["dateTime"]) for one in world.events(people.salon.calendar_id))
    assert [one.astimezone(UTC) for one in booked] == [moment for moment, _ in night]


@pytest.mark.parametrize("zone", ZONES)
def test_a_time_that_the_clocks_skip_is_not_booked_and_the_next_ones_are_offered(client, platform, people, world, zone):
    move_to(platform, people.salon, zone)
    day = next_change(zone, forward=True)
    said = people.salon.tool(client, "book_appointment", call_id="c", start=f"{day}T02:15", name="Ada", phone=ADA)
    assert "the clocks go forward then, and skip that time" in said
    assert world.events(people.salon.calendar_id) == []


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("forward", [True, False], ids=["forward", "back"])
def test_a_booking_across_the_change_has_its_real_length_and_the_text_says_the_local_time(
    app, client, platform, people, world, settle, zone, forward
):
    move_to(platform, people.salon, zone)
    CommandLine(app).data("service", "add", people.salon.id, "Long one", "--minutes", 120, "--after", 15)
    day, here = next_change(zone, forward=forward), ZoneInfo(zone)
    begins = local_moment(datetime.combine(day, time(1)), here)
    said = people.salon.tool(client, "book_appointment", call_id="c", start=f"{day}T01:00", name="Ada", phone=ADA)
    assert said.startswith("Booked for")
    (event,) = world.events(people.salon.calendar_id)
    start, end = (datetime.fromisoformat(event[edge]["dateTime"]) for edge in ("start", "end"))
    assert start == begins
    assert end - start == timedelta(minutes=120)
    assert (start + timedelta(minutes=120)).astimezone(here).utcoffset() != start.astimezone(here).utcoffset()
    settle(lambda: sent(platform, people.salon))
    (body,) = sent(platform, people.salon)
    assert "at 01:00" in body
    assert f"{day.day} {day:%B}" in body
    free = moments_of(free_times.free_times(platform, people.salon.id, first=day, days=1)["slots"])
    assert not [moment for moment in free if begins - timedelta(minutes=135) < moment < begins + timedelta(minutes=135)]
    assert min(moment for moment in free if moment > begins) < begins + timedelta(minutes=135 + 30 + 60)
