"""Slots on the days when the clocks change: every zone, both changes, every opening, length and step."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from itertools import pairwise, product
from zoneinfo import ZoneInfo

import pytest

from app.errors import InvalidInput
from app.services.slots import (
    DAYS,
    Period,
    is_open,
    local_iso,
    local_moment,
    midnight,
    open_slots,
    open_spans,
    parse_when,
)
from app.services.wording import Wording

# zone, the day, how many hours it has
CHANGES = [
    ("Europe/Berlin", date(2026, 3, 29), 23),
    ("Europe/Berlin", date(2026, 10, 25), 25),
    ("America/New_York", date(2026, 3, 8), 23),
    ("America/New_York", date(2026, 11, 1), 25),
    ("Australia/Lord_Howe", date(2026, 10, 4), 23.5),
    ("Australia/Lord_Howe", date(2026, 4, 5), 24.5),
    ("Africa/Cairo", date(2026, 4, 24), 23),  # the clocks skip midnight itself
]
HOURS = [
    [["00:00", "23:59"]],
    [["00:00", "02:30"], ["02:30", "06:00"]],
    [["01:45", "03:15"]],
    [["02:00", "03:00"]],
    [["02:15", "02:45"]],
    [["09:00", "12:00"], ["13:00", "17:30"]],
]
LENGTHS = [15, 20, 30, 45, 60, 90]
STEPS = [15, 30, 45, 60]
on_each_change = pytest.mark.parametrize(("zone", "day", "hours_long"), CHANGES, ids=lambda value: str(value))


def slots_of(zone: str, day: date, spans: list[list[str]], minutes: int, step: int) -> list[Period]:
    here = ZoneInfo(zone)
    around = midnight(day - timedelta(days=1), here), midnight(day + timedelta(days=2), here)
    hours = dict.fromkeys(DAYS, spans)
    return list(open_slots(hours, start=around[0], end=around[1], zone=here, minutes=minutes, step=step))


def ways() -> Iterator[tuple[list[list[str]], int, int]]:
    return product(HOURS, LENGTHS, STEPS)


def clock(moment: datetime, zone: str) -> datetime:
    return moment.astimezone(ZoneInfo(zone)).replace(tzinfo=None)


@on_each_change
def test_the_days_are_as_long_as_they_should_be(zone, day, hours_long):
    begins, ends = (midnight(one, ZoneInfo(zone)) for one in (day, day + timedelta(days=1)))
    assert ends - begins == timedelta(hours=hours_long)


@on_each_change
def test_every_slot_exists_and_begins_on_a_reading_of_the_clock_that_no_other_has(zone, day, hours_long):
    for spans, minutes, step in ways():
        slots = slots_of(zone, day, spans, minutes, step)
        walls = [clock(slot.start, zone) for slot in slots]
        assert len(set(walls)) == len(walls), (spans, minutes, step)
        assert len({slot.start for slot in slots}) == len(slots)
        assert slots == sorted(slots, key=lambda slot: slot.start)
        for slot, wall in zip(slots, walls, strict=True):
            assert local_moment(wall, ZoneInfo(zone)) == slot.start


@on_each_change
def test_every_slot_has_its_real_length_and_lies_within_the_hours_on_the_clock(zone, day, hours_long):
    for spans, minutes, step in ways():
        hours = dict.fromkeys(DAYS, spans)
        for slot in slots_of(zone, day, spans, minutes, step):
            assert slot.end - slot.start == timedelta(minutes=minutes)
            assert is_open(hours, slot, ZoneInfo(zone))
            opens = clock(slot.start, zone).time()
            last_minute = clock(slot.end - timedelta(minutes=1), zone).time()
            assert any(
                time.fromisoformat(first) <= opens and last_minute < time.fromisoformat(last) for first, last in spans
            )


@on_each_change
def test_slots_that_do_not_overlap_on_the_clock_do_not_overlap_in_real_time(zone, day, hours_long):
    for spans, minutes, step in ways():
        if minutes <= step:
            for one, next_one in pairwise(slots_of(zone, day, spans, minutes, step)):
                assert one.end <= next_one.start, (spans, minutes, step)


@on_each_change
def test_every_step_of_the_clock_that_exists_and_fits_is_offered(zone, day, hours_long):
    here = ZoneInfo(zone)
    for minutes, step in ((30, 30), (15, 15), (60, 60)):
        slots = slots_of(zone, day, [["00:00", "23:59"]], minutes, step)
        offered = {clock(slot.start, zone) for slot in slots}
        closes = open_spans(dict.fromkeys(DAYS, [["00:00", "23:59"]]), day, here)[0].end
        for number in range(24 * 60 // step):
            wall = datetime.combine(day, time.min) + timedelta(minutes=number * step)
            begins = local_moment(wall, here)
            fits = begins is not None and begins + timedelta(minutes=minutes) <= closes
            if fits and wall not in offered:  # only because the one before it takes the time, or it opens later
                assert any(slot.start < begins < slot.end for slot in slots) or begins < slots[0].start, wall


@on_each_change
def test_ordinary_hours_give_the_same_clock_times_as_on_any_day(zone, day, hours_long):
    slots = slots_of(zone, day, [["09:00", "12:00"], ["13:00", "17:30"]], 30, 30)
    by_day = {
        one: [clock(slot.start, zone).time() for slot in slots if clock(slot.start, zone).date() == one]
        for one in (day - timedelta(days=1), day, day + timedelta(days=1))
    }
    assert by_day[day] == by_day[day - timedelta(days=1)] == by_day[day + timedelta(days=1)]
    assert len(by_day[day]) == 15


@on_each_change
def test_each_minute_said_in_local_time_is_the_first_moment_that_shows_it_or_refused(zone, day, hours_long):
    here, words = ZoneInfo(zone), Wording("en", ZoneInfo(zone), "", {})
    shown: dict[datetime, datetime] = {}
    moment, ends = midnight(day, here), midnight(day + timedelta(days=1), here)
    while moment < ends:
        shown.setdefault(clock(moment, zone), moment)
        moment += timedelta(minutes=1)
    skipped = 0
    for number in range(24 * 60):
        wall = datetime.combine(day, time.min) + timedelta(minutes=number)
        if wall in shown:
            assert parse_when(wall.isoformat(), here) == shown[wall]
            assert f"{wall:%H:%M}" in words.time(shown[wall])
            assert datetime.fromisoformat(local_iso(shown[wall], here)) == shown[wall]
        else:
            skipped += 1
            with pytest.raises(InvalidInput, match="skip that time"):
                parse_when(wall.isoformat(), here)
    assert skipped == max(0, (24 - hours_long) * 60)


@pytest.mark.parametrize(
    ("zone", "day", "said", "first", "second"),
    [
        ("Europe/Berlin", date(2026, 10, 25), "02:30", "+02:00", "+01:00"),
        ("America/New_York", date(2026, 11, 1), "01:15", "-04:00", "-05:00"),
        ("Australia/Lord_Howe", date(2026, 4, 5), "01:45", "+11:00", "+10:30"),
    ],
)
def test_of_a_time_that_comes_twice_the_first_is_meant_and_the_second_can_be_said(zone, day, said, first, second):
    here = ZoneInfo(zone)
    assert local_iso(parse_when(f"{day}T{said}", here), here) == f"{day}T{said}:00{first}"
    assert local_iso(parse_when(f"{day}T{said}{second}", here), here) == f"{day}T{said}:00{second}"


@pytest.mark.parametrize(
    ("day", "hours", "opens", "closes"),
    [
        # opening and closing where the clocks skip is when they are moved
        (date(2026, 3, 29), ["02:30", "04:00"], "01:00", "02:00"),
        (date(2026, 3, 29), ["01:00", "02:30"], "00:00", "01:00"),
        # and of what comes twice the first is meant, unless all of it lies between
        (date(2026, 10, 25), ["02:30", "02:45"], "00:30", "00:45"),
        (date(2026, 10, 25), ["01:30", "03:00"], "23:30", "02:00"),
    ],
)
def test_hours_that_end_where_the_clocks_change(day, hours, opens, closes):
    (span,) = open_spans({"sun": [hours]}, day, ZoneInfo("Europe/Berlin"))
    assert [f"{moment:%H:%M}" for moment in (span.start, span.end)] == [opens, closes]


def test_hours_that_the_clocks_skip_altogether_open_nothing():
    assert open_spans({"sun": [["02:15", "02:45"]]}, date(2026, 3, 29), ZoneInfo("Europe/Berlin")) == []


def test_overlapping_hours_give_each_slot_once_and_in_order():
    slots = slots_of("Europe/Berlin", date(2026, 6, 1), [["10:00", "12:00"], ["09:00", "11:00"]], 30, 30)
    starts = [slot.start for slot in slots]
    assert starts == sorted(set(starts))


@on_each_change
def test_a_date_begins_at_its_first_moment_and_ends_at_the_next_days(zone, day, hours_long):
    begins, ends = (parse_when(day.isoformat(), ZoneInfo(zone), until=until) for until in (False, True))
    assert ends - begins == timedelta(hours=hours_long)
    assert clock(begins - timedelta(minutes=1), zone).date() < clock(begins, zone).date() == day
