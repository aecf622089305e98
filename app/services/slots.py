"""Opening hours and slots: pure reckoning in the organization's time zone.

Owns what "open" and "free" mean. Reads nothing and calls nobody, so that every rule can be tried
with plain values. Daylight saving: what the clocks skip on a day is no time at all, and hours that begin
or end there do so when the clocks are moved; of what they show twice the first time is meant.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from app.errors import InvalidInput

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DEFAULT_HOURS: dict[str, list[list[str]]] = {day: [["09:00", "17:00"]] for day in DAYS[:5]}


@dataclass(frozen=True, slots=True)
class Period:
    """A stretch of time, the end not included; both aware."""

    start: datetime
    end: datetime

    def overlaps(self, other: Period) -> bool:
        """Whether they share any moment."""
        return self.start < other.end and other.start < self.end

    def contains(self, other: Period) -> bool:
        """Whether all of the other lies within this one."""
        return self.start <= other.start and other.end <= self.end

    def is_about(self, other: Period) -> bool:
        """Whether they are the same to the second, which is how exactly a calendar keeps them."""
        second = timedelta(seconds=1)
        return abs(self.start - other.start) < second and abs(self.end - other.end) < second

    def without(self, other: Period) -> list[Period]:
        """What is left of this one when the other is taken out: none, one or two pieces."""
        if not self.overlaps(other):
            return [self]
        pieces = (Period(self.start, other.start), Period(other.end, self.end))
        return [piece for piece in pieces if piece.start < piece.end]

    def widened(self, before: int, after: int) -> Period:
        """The same with so many minutes before and after it."""
        return Period(self.start - timedelta(minutes=before), self.end + timedelta(minutes=after))


def check_hours(hours: Any) -> dict[str, list[list[str]]]:
    """Opening hours as ``{"mon": [["09:00", "17:00"]], ...}``; raises InvalidInput naming the day that is wrong."""
    if not isinstance(hours, dict):
        raise InvalidInput('opening hours are an object such as {"mon": [["09:00", "17:00"]]}')
    checked: dict[str, list[list[str]]] = {}
    for day, spans in hours.items():
        if day not in DAYS:
            raise InvalidInput(f"opening hours: days are {', '.join(DAYS)}")
        try:
            times = [(time.fromisoformat(opens), time.fromisoformat(closes)) for opens, closes in spans]
        except (TypeError, ValueError):
            raise InvalidInput(f'opening hours of {day}: a list of ["HH:MM", "HH:MM"] is needed') from None
        if any(opens >= closes for opens, closes in times):
            raise InvalidInput(f"opening hours of {day}: a span must begin before it ends")
        checked[day] = [[opens.strftime("%H:%M"), closes.strftime("%H:%M")] for opens, closes in sorted(times)]
    return checked


def parse_when(said: str, zone: ZoneInfo, *, until: bool = False) -> datetime:
    """A moment, in UTC, from ISO 8601 with an offset, or local to ``zone`` without one; of a date its beginning.

    ``until``: of a date its end. Raises InvalidInput, also for a local time that the clocks skip that day; of one
    that comes twice it is the first.
    """
    with suppress(ValueError, AttributeError):
        return midnight(date.fromisoformat(said.strip()) + timedelta(days=1 if until else 0), zone)
    try:
        moment = datetime.fromisoformat(said.strip())
    except (ValueError, AttributeError):
        raise InvalidInput("a time is needed such as 2026-12-01T15:00", code="no_time") from None
    if moment.tzinfo is not None:
        return moment.astimezone(UTC)
    found = local_moment(moment, zone)
    if found is None:
        raise InvalidInput("the clocks go forward then, and skip that time", code="no_such_time")
    return found


def local_moment(wall: datetime, zone: ZoneInfo) -> datetime | None:
    """The moment, in UTC, when clocks first show this naive local time; None when they skip it."""
    moment = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
    return moment if moment.astimezone(zone).replace(tzinfo=None) == wall else None


def clocks_show(wall: datetime, zone: ZoneInfo) -> datetime:
    """When clocks first show the time; when they are moved, where they skip it."""
    moment = local_moment(wall, zone)
    if moment is not None:
        return moment
    before, after = sorted(wall.replace(tzinfo=zone, fold=one).astimezone(UTC) for one in (0, 1))
    offset = before.astimezone(zone).utcoffset()
    while after - before > timedelta(seconds=1):
        between = before + (after - before) / 2
        if between.astimezone(zone).utcoffset() == offset:
            before = between
        else:
            after = between
    return after.replace(second=0, microsecond=0)  # clocks are moved on a full minute


def midnight(day: date, zone: ZoneInfo) -> datetime:
    """The moment, in UTC, when that local day begins, also where the clocks skip midnight."""
    return clocks_show(datetime.combine(day, time.min), zone)


def open_spans(hours: dict[str, Any], day: date, zone: ZoneInfo) -> list[Period]:
    """When the business is open on that local day; none that is skipped altogether."""
    spans = [_span(day, opens, closes, zone) for opens, closes in hours.get(DAYS[day.weekday()], [])]
    return [span for span in spans if span.start < span.end]


def is_open(hours: dict[str, Any], wanted: Period, zone: ZoneInfo) -> bool:
    """Whether the whole period lies within one opening span of its local day."""
    spans = open_spans(hours, wanted.start.astimezone(zone).date(), zone)
    return any(span.contains(wanted) for span in spans)


def open_slots(
    hours: dict[str, Any], *, start: datetime, end: datetime, zone: ZoneInfo, minutes: int, step: int
) -> Iterator[Period]:
    """What could be booked between ``start`` and ``end`` were nothing taken, the earliest first.

    Each is ``minutes`` of real time. They begin every ``step`` minutes on the clock from each opening on; on no
    reading of the clock twice. Where they do not overlap on the clock, they do not when the clocks go forward.
    """
    day = start.astimezone(zone).date()
    while midnight(day, zone) < end:
        spans = hours.get(DAYS[day.weekday()], [])
        found = {slot for opens, closes in spans for slot in _slots_of(day, opens, closes, zone, minutes, step)}
        for slot in sorted(found, key=lambda one: one.start):
            if slot.start >= start and slot.end <= end:
                yield slot
        day += timedelta(days=1)


def local_iso(moment: datetime, zone: ZoneInfo) -> str:
    """A moment as a tool takes it back: ``2026-12-01T15:00:00+01:00``."""
    return moment.astimezone(zone).isoformat(timespec="seconds")


def _span(day: date, opens: str, closes: str, zone: ZoneInfo) -> Period:
    first, last = (datetime.combine(day, time.fromisoformat(said)) for said in (opens, closes))
    return Period(clocks_show(first, zone), clocks_show(last, zone))


def _slots_of(day: date, opens: str, closes: str, zone: ZoneInfo, minutes: int, step: int) -> Iterator[Period]:
    span, length = _span(day, opens, closes, zone), timedelta(minutes=minutes)
    wall, last = (datetime.combine(day, time.fromisoformat(said)) for said in (opens, closes))
    ended = span.start
    while wall < last:
        begins = local_moment(wall, zone)
        wall += timedelta(minutes=step)
        if begins is None or (minutes <= step and begins < ended):
            continue
        slot = Period(begins, begins + length)
        if span.contains(slot):
            ended = slot.end
            yield slot
