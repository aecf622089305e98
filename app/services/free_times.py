"""Free times for programs: what the organization's rules allow, less what is taken.

Owns which days are looked at, and for how long a program waits. What can be booked is ``offers.py``'s.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from app.integrations.deadline import Deadline
from app.services import offers
from app.services.readable import plain
from app.services.slots import midnight

if TYPE_CHECKING:
    from app.services.platform import Platform

MOST_DAYS = 31
MOST_SLOTS = 10_000  # more than 31 days of five minutes
DEADLINE_SECONDS = 8.0


def free_times(
    platform: Platform,
    org_id: UUID,
    *,
    first: date | None,
    days: int,
    service: str | None = None,
    staff: str | None = None,
) -> dict[str, Any]:
    """The free slots of ``days`` local days from ``first`` (today) on: ``timezone``, ``slot_minutes``, ``slots``.

    Nothing that is past; a slot is as long as the service. Raises InvalidInput when it is not clear which service
    or who is meant, TemporaryFailure when it cannot be known how busy the calendar is, because a guess would
    be booked over, and PermanentFailure when the calendar refuses.
    """
    business = platform.directory.business(org_id)
    wish = offers.wish(platform, business, service=service, staff=staff)
    zone = wish.rules.zone
    now = datetime.now(UTC)
    begins = first or now.astimezone(zone).date()
    start, end = max(midnight(begins, zone), now), midnight(begins + timedelta(days=days), zone)
    found = offers.find(
        platform,
        business,
        wish,
        start=start,
        end=end,
        most=MOST_SLOTS,
        deadline=Deadline.within(DEADLINE_SECONDS),
    )
    return {
        "timezone": zone.key,
        "slot_minutes": wish.service.minutes,
        "service": wish.service.name or None,
        "slots": [{"starts_at": plain(slot.start), "ends_at": plain(slot.end)} for slot in found.slots],
    }
