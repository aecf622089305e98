"""The organization's rules for bookings: what it offers, with whom, when, how soon and how far ahead.

Owns what a service, a place (a person, a room, or the business itself) and a closure mean for a time,
and the sentences that say why a time is refused. ``load`` alone reads; all else is reckoning.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy.orm import Session

from app.errors import InvalidInput, NotFound
from app.models.appointments import Appointment
from app.models.closures import list_closures
from app.models.held_times import Held
from app.models.organizations import find_organization
from app.models.resources import list_resources, services_by_resource
from app.models.services_offered import list_services
from app.services.matching import match
from app.services.slots import Period, midnight, open_slots, open_spans, say_clock

if TYPE_CHECKING:
    from app.services.directory import Business

NEVER = datetime(9000, 1, 1, tzinfo=UTC)
_DAY_NAMES = ("Mondays", "Tuesdays", "Wednesdays", "Thursdays", "Fridays", "Saturdays", "Sundays")


@dataclass(frozen=True, slots=True)
class Offered:
    """A service as a booking needs it. Without services there is one with no id and no name: a slot's length."""

    id: UUID | None
    name: str
    minutes: int
    buffer_before: int = 0
    buffer_after: int = 0
    price: str | None = None

    def at(self, start: datetime) -> Period:
        """The appointment's own time, of its real length."""
        return Period(start, start + timedelta(minutes=self.minutes))

    def held(self, period: Period) -> Period:
        """The time that nobody else may have."""
        return period.widened(self.buffer_before, self.buffer_after)


@dataclass(frozen=True, slots=True)
class Place:
    """Where or with whom: a person, a room, or, with no id and no name, the business itself."""

    id: UUID | None
    name: str
    calendar_id: str
    seats: int
    hours: dict[str, Any]
    services: frozenset[UUID] | None = None
    closures: tuple[Period, ...] = ()

    def does(self, service: Offered) -> bool:
        """Whether this service is done here."""
        return self.services is None or service.id in self.services

    def free_seats(self, held: Sequence[Held], wanted: Period) -> list[int]:
        """The seats that none of the bookings here has within the time."""
        taken = {one.seat for one in held if wanted.overlaps(Period(one.start, one.end)) and self._is_here(one)}
        return [seat for seat in range(1, self.seats + 1) if seat not in taken]

    def _is_here(self, one: Held) -> bool:
        if one.resource_id is None:  # made before anybody was named; whoever shares that calendar is with them
            return one.calendar_id == self.calendar_id
        return one.resource_id == self.id


@dataclass(frozen=True, slots=True)
class Rules:
    """All that an organization allows, as it was read; ``closures`` are the whole business's, with their names."""

    zone: ZoneInfo
    slot_minutes: int
    notice: timedelta
    ahead_days: int | None
    services: tuple[Offered, ...]
    places: tuple[Place, ...]
    closures: tuple[tuple[str, Period], ...]
    shared_calendars: frozenset[str]

    def service(self, said: str | None) -> Offered:
        """The service that is meant; raises InvalidInput naming what there is when that is not clear."""
        if not self.services:
            return Offered(None, "", self.slot_minutes)
        if not said:
            if len(self.services) == 1:
                return self.services[0]
            raise InvalidInput(f"which service is it? We offer {_listed(self.services)}", code="which_service")
        found = match(said, self.services)
        if len(found) == 1:
            return found[0]
        if found:
            raise InvalidInput(f"which service is meant: {_listed(found)}", code="which_service")
        raise InvalidInput(f"we don't offer that; we offer {_listed(self.services)}", code="unknown_service")

    def service_of(self, row: Appointment) -> Offered:
        """The service of an appointment that is there; as it was booked, when that is offered no more."""
        if row.service_id is None and not self.services:
            return Offered(None, "", self.slot_minutes)
        minutes = round((row.ends_at - row.starts_at).total_seconds() / 60)
        as_booked = Offered(row.service_id, "", minutes, row.buffer_before, row.buffer_after)
        return next((one for one in self.services if one.id == row.service_id), as_booked)

    def places_of(self, row: Appointment, service: Offered, staff: str | None) -> tuple[Place, ...]:
        """Where an appointment may be moved to: with whom it is, unless somebody else is asked for.

        Raises InvalidInput, also for somebody with another calendar, which an event cannot be moved to.
        """
        if staff:
            able = self.places_for(service, staff)
        else:
            able = tuple(one for one in self.places if one.id == row.resource_id) or self.places_for(service, None)
        found = tuple(one for one in able if one.id == row.resource_id or one.calendar_id == row.calendar_id)
        if not found:
            raise InvalidInput(
                f"{_names(able)} keeps another calendar: book the new time there, then cancel the old one",
                code="other_calendar",
            )
        if not any(one.does(service) for one in found):
            raise InvalidInput(f"{_names(found)} doesn't do {service.name}", code="other_staff")
        return found

    def places_for(self, service: Offered, staff: str | None) -> tuple[Place, ...]:
        """Who may do it, of those that are meant; raises InvalidInput in words when nobody may."""
        able = tuple(place for place in self.places if place.does(service))
        if staff and any(place.id for place in self.places):
            found = match(staff, self.places)
            if not found:
                raise InvalidInput(f"there is nobody of that name; there is {_names(able)}", code="unknown_staff")
            able = tuple(place for place in found if place.does(service))
            if not able:
                raise InvalidInput(f"{_names(found)} doesn't do {service.name}", code="other_staff")
        if not able:
            raise InvalidInput(f"nobody does {service.name} at present", code="unknown_service")
        return able

    def check(self, service: Offered, places: Sequence[Place], wanted: Period) -> tuple[Place, ...]:
        """Those of the places that are open then; raises InvalidInput saying why there is none."""
        now = datetime.now(UTC)
        if wanted.start <= now:
            raise InvalidInput("that time is in the past", code="past")
        if wanted.start < now + self.notice:
            raise InvalidInput(f"that is too soon: we need {_long(self.notice)} of notice", code="too_soon")
        if wanted.start >= self.last(now):
            raise InvalidInput(f"that is too far ahead: we book {self.ahead_days} days ahead", code="too_far")
        for name, closed in self.closures:
            if closed.overlaps(wanted):
                raise InvalidInput(f"we are closed then: {name}", code="closure")
        found = tuple(place for place in places if self.is_open(place, wanted))
        if not found:
            raise InvalidInput(self._why_closed(places, wanted), code="closed")
        return found

    def last(self, now: datetime) -> datetime:
        """The end of the last local day that may be booked."""
        if self.ahead_days is None:
            return NEVER
        return midnight(now.astimezone(self.zone).date() + timedelta(days=self.ahead_days + 1), self.zone)

    def is_open(self, place: Place, wanted: Period) -> bool:
        """Whether there are hours then, and no leave of that place. The business's closures are asked apart."""
        spans = open_spans(place.hours, wanted.start.astimezone(self.zone).date(), self.zone)
        return any(span.contains(wanted) for span in spans) and not any(
            closed.overlaps(wanted) for closed in place.closures
        )

    def bookable(self, service: Offered, place: Place, *, start: datetime, end: datetime) -> Iterator[Period]:
        """What one place might take between the two, were nothing taken yet, the earliest first."""
        now = datetime.now(UTC)
        start, end = max(start, now + self.notice), min(end, self.last(now) + timedelta(minutes=service.minutes))
        closed = (*place.closures, *(period for _, period in self.closures))
        last = self.last(now)
        for slot in open_slots(
            place.hours, start=start, end=end, zone=self.zone, minutes=service.minutes, step=self.slot_minutes
        ):
            if slot.start < last and not any(slot.overlaps(period) for period in closed):
                yield slot

    def _why_closed(self, places: Sequence[Place], wanted: Period) -> str:
        day = wanted.start.astimezone(self.zone).date()
        spans = sorted(
            (span for place in places for span in open_spans(place.hours, day, self.zone)), key=lambda span: span.start
        )
        if any(span.contains(wanted) for span in spans):
            return f"{_names(places)} cannot be had then"
        if not spans and len(places) == 1 and places[0].name:
            return f"{places[0].name} is not there on {_DAY_NAMES[day.weekday()]}"
        if not spans:
            return f"the business is closed then: we are closed on {_DAY_NAMES[day.weekday()]}"
        if wanted.start < spans[0].start:
            return f"the business is closed then: we open at {say_clock(spans[0].start, self.zone)}"
        closes = max(span.end for span in spans)
        if wanted.end > closes:
            return f"the business is closed then: we close at {say_clock(closes, self.zone)}"
        hours = " and ".join(f"{say_clock(one.start, self.zone)} to {say_clock(one.end, self.zone)}" for one in spans)
        return f"the business is closed then: that day we are open {hours}"


def load(session: Session, business: Business, *, house_calendar: str) -> Rules:
    """The organization's rules as they are now; ``house_calendar`` is where those without their own are written.

    Raises NotFound.
    """
    org = find_organization(session, business.id)
    if org is None:
        raise NotFound("no such organization")
    resources = [row for row in list_resources(session, org.id) if row.active]
    does = services_by_resource(session, org.id)
    closures = list_closures(session, org.id, after=datetime.now(UTC))
    places = tuple(
        Place(
            id=row.id,
            name=row.name,
            calendar_id=row.calendar_id or house_calendar,
            seats=row.seats,
            hours=row.opening_hours if row.opening_hours is not None else org.opening_hours,
            services=frozenset(does[row.id]) if row.id in does else None,
            closures=tuple(Period(one.starts_at, one.ends_at) for one in closures if one.resource_id == row.id),
        )
        for row in resources
    ) or (Place(None, "", house_calendar, org.seats, org.opening_hours),)
    calendars = [place.calendar_id for place in places]
    return Rules(
        zone=ZoneInfo(org.timezone),
        slot_minutes=org.slot_minutes,
        notice=timedelta(minutes=org.notice_minutes),
        ahead_days=org.ahead_days,
        services=tuple(
            Offered(row.id, row.name, row.minutes, row.buffer_before, row.buffer_after, row.price)
            for row in list_services(session, org.id)
            if row.active
        ),
        places=places,
        closures=tuple((one.name, Period(one.starts_at, one.ends_at)) for one in closures if one.resource_id is None),
        shared_calendars=frozenset(
            place.calendar_id for place in places if place.seats > 1 or calendars.count(place.calendar_id) > 1
        ),
    )


def _listed(services: Sequence[Offered]) -> str:
    return ", ".join(f"{one.name} ({one.minutes} minutes{f', {one.price}' if one.price else ''})" for one in services)


def _names(places: Sequence[Place]) -> str:
    return ", ".join(place.name for place in places)


def _long(time: timedelta) -> str:
    minutes = round(time.total_seconds() / 60)
    for size, unit in ((1440, "day"), (60, "hour")):
        if minutes % size == 0:
            return f"{minutes // size} {unit}{'' if minutes == size else 's'}"
    return f"{minutes} minutes"
