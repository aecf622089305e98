"""The shapes of Google Calendar's answers (Calendar API reference, "Events" and "Freebusy").

Owns the reading of them, and the writing of times. What is missing or odd raises ValueError
(BrokenAnswer is one); asks nobody.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, tzinfo
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

CANCELLED = "cancelled"


class BrokenAnswer(ValueError):
    """An answer that does not have the documented shape."""


@dataclass(frozen=True, slots=True)
class BusyPeriod:
    """A time somebody is busy, in UTC; ``end`` is exclusive."""

    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class CalendarEvent:
    """An event, its times in UTC. A cancelled one may have nothing but its id.

    ``private`` are the properties only this product sees; a ``transparent`` event keeps nobody busy, nor
    does one that the calendar's owner ``declined``.
    """

    id: str
    etag: str | None = None
    status: str = "confirmed"
    start: datetime | None = None
    end: datetime | None = None
    private: dict[str, str] = field(default_factory=dict)
    updated: datetime | None = None
    all_day: bool = False
    transparent: bool = False
    declined: bool = False


@dataclass(frozen=True, slots=True)
class Changes:
    """What changed since a sync token, and the next one (None: Google gave none, so look at all again)."""

    events: list[CalendarEvent]
    next_sync_token: str | None


def read_event(item: Any, *, zone: str | None = None) -> CalendarEvent:
    """An event resource; days begin at midnight in ``zone``, the calendar's."""
    if not isinstance(item, dict) or not isinstance(item.get("id"), str):
        raise BrokenAnswer("not an event")
    properties = item.get("extendedProperties")
    private = properties.get("private") if isinstance(properties, dict) else None
    start, end = item.get("start"), item.get("end")
    updated = item.get("updated")
    return CalendarEvent(
        id=item["id"],
        etag=item.get("etag"),
        status=str(item.get("status", "confirmed")),
        start=_edge(start, zone),
        end=_edge(end, zone),
        private={str(name): str(value) for name, value in private.items()} if isinstance(private, dict) else {},
        updated=read_moment(updated) if updated else None,
        all_day=isinstance(start, dict) and "date" in start,
        transparent=item.get("transparency") == "transparent",
        declined=_is_declined(item.get("attendees")),
    )


def _is_declined(attendees: Any) -> bool:
    return isinstance(attendees, list) and any(
        isinstance(one, dict) and one.get("self") is True and one.get("responseStatus") == "declined"
        for one in attendees
    )


def read_busy(periods: Any) -> list[BusyPeriod]:
    """The ``busy`` list of one calendar, by time."""
    if not isinstance(periods, list):
        raise BrokenAnswer("not a list of periods")
    found = []
    for period in periods:
        if not isinstance(period, dict):
            raise BrokenAnswer("not a period")
        found.append(BusyPeriod(read_moment(period.get("start")), read_moment(period.get("end"))))
    return sorted(found, key=lambda busy: (busy.start, busy.end))


def read_moment(value: Any) -> datetime:
    """An RFC 3339 time, in UTC."""
    if not isinstance(value, str):
        raise BrokenAnswer("not a time")
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None:
        raise BrokenAnswer("a time without an offset")
    return moment.astimezone(UTC)


def write_moment(moment: datetime) -> str:
    """RFC 3339 with an offset. Raises ValueError for a naive time: nobody knows when that is."""
    if moment.tzinfo is None:
        raise ValueError("a naive time was given where an aware one is needed")
    return moment.isoformat()


def _edge(edge: Any, zone: str | None) -> datetime | None:
    if not isinstance(edge, dict):
        return None
    if edge.get("dateTime"):
        return read_moment(edge["dateTime"])
    if not isinstance(edge.get("date"), str):
        return None
    midnight = datetime.combine(date.fromisoformat(edge["date"]), time(), _zone(edge.get("timeZone") or zone))
    return midnight.astimezone(UTC)


def _zone(name: Any) -> tzinfo:
    try:
        return ZoneInfo(name) if isinstance(name, str) else UTC
    except (ZoneInfoNotFoundError, ValueError):
        return UTC
