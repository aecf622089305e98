"""Free times for programs: our own appointments and the calendar's busy times, laid over the opening hours.

Owns which days are looked at, and for how long a program waits. Whether the calendar is busy is
``availability.py``'s, what a slot is ``slots.py``'s.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID
from zoneinfo import ZoneInfo

from app.integrations.deadline import Deadline
from app.services import appointments, availability
from app.services.readable import plain
from app.services.slots import Period

if TYPE_CHECKING:
    from app.services.platform import Platform

MOST_DAYS = 31
MOST_SLOTS = 10_000  # more than 31 days of five minutes
DEADLINE_SECONDS = 8.0


def free_times(platform: Platform, org_id: UUID, *, first: date | None, days: int) -> dict[str, Any]:
    """The free slots of ``days`` local days from ``first`` (today) on: ``timezone``, ``slot_minutes``, ``slots``.

    Nothing that is past. Raises TemporaryFailure when it cannot be known how busy the calendar is, because a
    guess would be booked over, and PermanentFailure when the calendar refuses.
    """
    business = platform.directory.business(org_id)
    zone = ZoneInfo(business.timezone)
    now = datetime.now(UTC)
    begins = first or now.astimezone(zone).date()
    midnight, end = (
        datetime.combine(day, time.min, zone).astimezone(UTC) for day in (begins, begins + timedelta(days=days))
    )
    start = max(midnight, now)
    slots: list[Period] = []
    if end > start:
        known = availability.busy(platform, org_id, Period(start, end), deadline=Deadline.within(DEADLINE_SECONDS))
        slots = appointments.offer(platform, business, known.periods, start=start, end=end, most=MOST_SLOTS)
    return {
        "timezone": business.timezone,
        "slot_minutes": business.slot_minutes,
        "slots": [{"starts_at": plain(slot.start), "ends_at": plain(slot.end)} for slot in slots],
    }
