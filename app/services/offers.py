"""What can be booked: the rules' slots, less what our own appointments and the calendars have taken.

Owns the overlay of the three. Who is asked about a calendar is ``availability.py``'s, what is allowed
``booking_rules.py``'s. Changes nothing, and holds no transaction open while a calendar is asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from heapq import merge
from itertools import groupby
from typing import TYPE_CHECKING
from uuid import UUID

from app.errors import NotFound, TemporaryFailure
from app.integrations.deadline import Deadline
from app.integrations.google_calendar import GoogleCalendarCredentials
from app.models.held_times import Held, held_periods
from app.services import availability, booking_rules, calendar_mirror
from app.services.booking_rules import Offered, Place, Rules
from app.services.slots import Period

if TYPE_CHECKING:
    from app.services.directory import Business
    from app.services.platform import Platform

READ_TIMEOUT_MS = 5_000  # a caller, or a program, waits for it
HOUSE_CALENDAR = "voicedesk"


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked for: one service, with any of the places, by rules that were read just now."""

    rules: Rules
    service: Offered
    places: tuple[Place, ...]

    def held(self, start: datetime, end: datetime) -> Period:
        """The time that has to be known to judge what begins and ends between the two."""
        return self.service.held(Period(start, end))


@dataclass(frozen=True, slots=True)
class Found:
    """Free times, the earliest first, and by whose word they are free (as in ``availability.Known``)."""

    slots: list[Period]
    source: str | None


def rules_of(platform: Platform, business: Business) -> Rules:
    """The organization's rules as they are now."""
    calendar_id = calendar_of(platform, business.id)
    with platform.database.transaction(business.id, statement_timeout_ms=READ_TIMEOUT_MS) as session:
        return booking_rules.load(session, business, house_calendar=calendar_id)


def wish(platform: Platform, business: Business, *, service: str | None, staff: str | None) -> Wish:
    """What is meant by the names that were said; raises InvalidInput in words when that is not clear."""
    rules = rules_of(platform, business)
    meant = rules.service(service)
    return Wish(rules, meant, rules.places_for(meant, staff))


def find(
    platform: Platform,
    business: Business,
    wanted: Wish,
    *,
    start: datetime,
    end: datetime,
    most: int,
    deadline: Deadline,
) -> Found:
    """The first ``most`` times between the two that somebody is free for what is wanted.

    Raises TemporaryFailure when it cannot be known how busy a calendar is, PermanentFailure when Google refuses.
    """
    if end <= start:
        return Found([], None)
    around = wanted.held(start, end)
    busy, source = _busy(platform, business, wanted, around, deadline=deadline)
    with platform.database.transaction(business.id, statement_timeout_ms=READ_TIMEOUT_MS) as session:
        held = held_periods(session, business.id, start=around.start, end=around.end)
    slots: list[Period] = []
    streams = (wanted.rules.bookable(wanted.service, place, start=start, end=end) for place in wanted.places)
    pairs = (((slot.start, number, slot) for slot in stream) for number, stream in enumerate(streams))
    for _, same in groupby(merge(*pairs), key=lambda pair: pair[0]):
        if len(slots) == most:
            break
        free = next((slot for _, n, slot in same if _is_free(wanted, wanted.places[n], slot, held, busy)), None)
        if free is not None:
            slots.append(free)
    return Found(slots, source)


def prefer_idle(platform: Platform, business: Business, wanted: Wish, period: Period, *, deadline: Deadline) -> Wish:
    """The same with those first whose calendars are free then, as far as that is known in time."""
    if len({place.calendar_id for place in wanted.places}) < 2:
        return wanted
    around = wanted.service.held(period)
    try:
        busy, _ = _busy(platform, business, wanted, around, deadline=deadline)
    except TemporaryFailure:
        return wanted
    return replace(wanted, places=tuple(sorted(wanted.places, key=lambda one: _overlaps(busy, one, around))))


def without_ours(
    platform: Platform,
    business: Business,
    calendar_id: str,
    busy: Sequence[Period],
    around: Period,
    *,
    except_for: UUID | None = None,
) -> list[Period]:
    """What keeps a calendar busy that several share, less our own bookings, which the database keeps apart.

    Where only one at a time is booked in the calendar it is all of it.
    """
    if not busy or calendar_id not in rules_of(platform, business).shared_calendars:
        return list(busy)
    with platform.database.transaction(business.id, statement_timeout_ms=READ_TIMEOUT_MS) as session:
        held = held_periods(session, business.id, start=around.start, end=around.end)
    left = list(busy)
    for one in held:
        if one.calendar_id == calendar_id and one.id != except_for:
            left = [piece for period in left for piece in period.without(Period(one.begins, one.ends))]
    return left + _entered_by_people(platform, business, calendar_id, around)


def calendar_of(platform: Platform, org_id: UUID) -> str:
    """The organization's own calendar: Google's id, or the house's own without an integration."""
    try:
        credentials = platform.directory.integration(org_id, "google-calendar").credentials
    except NotFound:
        return HOUSE_CALENDAR
    assert isinstance(credentials, GoogleCalendarCredentials)
    return credentials.calendar_id


def _busy(
    platform: Platform, business: Business, wanted: Wish, around: Period, *, deadline: Deadline
) -> tuple[dict[str, list[Period]], str | None]:
    """What keeps each calendar of the places busy, and by whose word; the mirror's, if it spoke for any."""
    busy: dict[str, list[Period]] = {}
    sources: set[str | None] = set()
    for calendar_id in dict.fromkeys(place.calendar_id for place in wanted.places):
        known = availability.busy(platform, business.id, around, deadline=deadline, calendar_id=calendar_id)
        sources.add(known.source)
        busy[calendar_id] = known.periods
        if known.source == "google" and calendar_id in wanted.rules.shared_calendars:
            busy[calendar_id] = without_ours(platform, business, calendar_id, known.periods, around)
    return busy, "mirror" if "mirror" in sources else next(iter(sources), None)


def _entered_by_people(platform: Platform, business: Business, calendar_id: str, around: Period) -> list[Period]:
    """What the mirror knows of others' events: where they lie on our own, the calendar's word cannot tell them."""
    endpoint = platform.directory.integration(business.id, "google-calendar")
    return calendar_mirror.busy(platform, endpoint, calendar_id, around) or []


def _is_free(wanted: Wish, place: Place, slot: Period, held: Sequence[Held], busy: Mapping[str, list[Period]]) -> bool:
    around = wanted.service.held(slot)
    return not _overlaps(busy, place, around) and bool(place.free_seats(held, around))


def _overlaps(busy: Mapping[str, list[Period]], place: Place, around: Period) -> bool:
    return any(period.overlaps(around) for period in busy.get(place.calendar_id, ()))
