"""Opening hours, slots and the words for times: pure reckoning in the organization's time zone.

Owns what "open" and "free" mean. Reads nothing and calls nobody, so that every rule can be tried
with plain values; daylight saving is right because wall-clock times are made per day.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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


def parse_when(said: str, zone: ZoneInfo) -> datetime:
    """A moment from ISO 8601 with an offset, or local to ``zone`` without one; raises InvalidInput."""
    try:
        moment = datetime.fromisoformat(said.strip())
    except (ValueError, AttributeError):
        raise InvalidInput("a time is needed such as 2026-12-01T15:00") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=zone)


def open_spans(hours: dict[str, Any], day: date, zone: ZoneInfo) -> list[Period]:
    """When the business is open on that local day."""
    return [
        Period(
            datetime.combine(day, time.fromisoformat(opens), zone).astimezone(UTC),
            datetime.combine(day, time.fromisoformat(closes), zone).astimezone(UTC),
        )
        for opens, closes in hours.get(DAYS[day.weekday()], [])
    ]


def is_open(hours: dict[str, Any], wanted: Period, zone: ZoneInfo) -> bool:
    """Whether the whole period lies within one opening span of its local day."""
    spans = open_spans(hours, wanted.start.astimezone(zone).date(), zone)
    return any(span.start <= wanted.start and wanted.end <= span.end for span in spans)


def free_slots(
    hours: dict[str, Any], busy: Sequence[Period], *, start: datetime, end: datetime, zone: ZoneInfo, minutes: int
) -> Iterator[Period]:
    """The slots between ``start`` and ``end`` that are open and not busy, the earliest first."""
    length = timedelta(minutes=minutes)
    day = start.astimezone(zone).date()
    while datetime.combine(day, time.min, zone) < end:
        for span in open_spans(hours, day, zone):
            begins = span.start
            while begins + length <= span.end:
                slot = Period(begins, begins + length)
                if slot.start >= start and slot.end <= end and not any(slot.overlaps(taken) for taken in busy):
                    yield slot
                begins += length
        day += timedelta(days=1)


def say_time(moment: datetime, zone: ZoneInfo) -> str:
    """A moment as it is spoken and texted, in local time: ``Tuesday 1 December at 15:00``."""
    local = moment.astimezone(zone)
    return f"{local:%A} {local.day} {local:%B} at {local:%H:%M}"


def local_iso(moment: datetime, zone: ZoneInfo) -> str:
    """A moment as a tool takes it back: ``2026-12-01T15:00:00+01:00``."""
    return moment.astimezone(zone).isoformat(timespec="seconds")
