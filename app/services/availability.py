"""What is free: our own appointments and the calendar's busy times, laid over the opening hours.

Owns the question to the calendar, within a deadline and with no transaction open. What a slot is, is
``slots.py``'s; what is said of it, the asker's.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID
from zoneinfo import ZoneInfo

from app.errors import NotFound
from app.integrations.deadline import Deadline
from app.integrations.google_calendar import BusyPeriod, GoogleCalendarCredentials
from app.integrations.retrying import with_retries
from app.services import appointments
from app.services.calendar_push import TRY_SECONDS_WAITING
from app.services.readable import plain
from app.services.slots import Period

if TYPE_CHECKING:
    from app.services.platform import Platform

MOST_DAYS = 31
MOST_SLOTS = 10_000  # more than 31 days of five minutes
PROGRAM_DEADLINE_SECONDS = 8.0


def calendar_busy(platform: Platform, org_id: UUID, period: Period, *, deadline: Deadline) -> list[Period]:
    """When the organization's calendar is taken; nothing without one. Raises TemporaryFailure, PermanentFailure."""
    try:
        credentials = platform.directory.integration(org_id, "google-calendar").credentials
    except NotFound:
        return []
    assert isinstance(credentials, GoogleCalendarCredentials)

    def ask() -> list[BusyPeriod]:
        seconds = deadline.try_timeout(TRY_SECONDS_WAITING)
        return platform.google.busy(credentials, start=period.start, end=period.end, timeout_seconds=seconds)

    found = with_retries(ask, deadline=deadline, idempotent=True)
    return [Period(busy.start, busy.end) for busy in found]


def free_times(platform: Platform, org_id: UUID, *, first: date | None, days: int) -> dict[str, Any]:
    """The free slots of ``days`` local days from ``first`` (today) on: ``timezone``, ``slot_minutes``, ``slots``.

    Nothing that is past. Raises TemporaryFailure when the calendar cannot be asked, because a guess would
    be booked over, and PermanentFailure when it refuses.
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
        deadline = Deadline.within(PROGRAM_DEADLINE_SECONDS)
        busy = calendar_busy(platform, org_id, Period(start, end), deadline=deadline)
        slots = appointments.offer(platform, business, busy, start=start, end=end, most=MOST_SLOTS)
    return {
        "timezone": business.timezone,
        "slot_minutes": business.slot_minutes,
        "slots": [{"starts_at": plain(slot.start), "ends_at": plain(slot.end)} for slot in slots],
    }
