"""The organization's rules for bookings: what it offers, with whom, when, how soon and how far ahead.

Owns what a service, a place (a person, a room, or the business itself) and a closure mean for a time,
and why a time is refused; how that is said is ``wording.py``'s. ``load`` alone reads; all else is reckoning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy.orm import Session

from app.errors import NotFound
from app.models.appointments import Appointment
from app.models.closures import list_closures
from app.models.held_times import Held
from app.models.organizations import find_organization
from app.models.resources import list_resources, services_by_resource
from app.models.services_offered import list_services
from app.services.matching import match
from app.services.slots import Period, midnight, open_slots, open_spans
from app.services.wording import Refused, Wording

if TYPE_CHECKING:
    from app.services.directory import Business

NEVER = datetime(9000, 1, 1, tzinfo=UTC)
Said = Callable[[Wording], str]  # written when it is known in which language


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
        """The service that is meant; raises Refused naming what there is when that is not clear."""
        if not self.services:
            return Offered(None, "", self.slot_minutes)
        if not said:
            if len(self.services) == 1:
                return self.services[0]
            raise Refused("which_service", code="which_service", services=_listed(self.services))
        found = match(said, self.services)
        if len(found) == 1:
            return found[0]
        if found:
            raise Refused("which_of_services", code="which_service", services=_listed(found))
        raise Refused("unknown_service", code="unknown_service", services=_listed(self.services))

    def service_of(self, row: Appointment) -> Offered:
        """The service of an appointment that is there; as it was booked, when that is offered no more."""
        if row.service_id is None and not self.services:
            return Offered(None, "", self.slot_minutes)
        minutes = round((row.ends_at - row.starts_at).total_seconds() / 60)
        as_booked = Offered(row.service_id, "", minutes, row.buffer_before, row.buffer_after)
        return next((one for one in self.services if one.id == row.service_id), as_booked)

    def places_of(self, row: Appointment, service: Offered, staff: str | None) -> tuple[Place, ...]:
        """Where an appointment may be moved to: with whom it is, unless somebody else is asked for.

        Raises Refused, also for somebody with another calendar, which an event cannot be moved to.
        """
        if staff:
            able = self.places_for(service, staff)
        else:
            able = tuple(one for one in self.places if one.id == row.resource_id) or self.places_for(service, None)
        found = tuple(one for one in able if one.id == row.resource_id or one.calendar_id == row.calendar_id)
        if not found:
            raise Refused("other_calendar", code="other_calendar", staff=_names(able))
        if not any(one.does(service) for one in found):
            raise Refused("other_staff", code="other_staff", staff=_names(found), service=service.name)
        return found

    def places_for(self, service: Offered, staff: str | None) -> tuple[Place, ...]:
        """Who may do it, of those that are meant; raises Refused when nobody may."""
        able = tuple(place for place in self.places if place.does(service))
        if staff and any(place.id for place in self.places):
            found = match(staff, self.places)
            if not found:
                raise Refused("unknown_staff", code="unknown_staff", staff=_names(able))
            able = tuple(place for place in found if place.does(service))
            if not able:
                raise Refused("other_staff", code="other_staff", staff=_names(found), service=service.name)
        if not able:
            raise Refused("nobody_does", code="unknown_service", service=service.name)
        return able

    def check(self, service: Offered, places: Sequence[Place], wanted: Period) -> tuple[Place, ...]:
        """Those of the places that are open then; raises Refused saying why there is none."""
        now = datetime.now(UTC)
        if wanted.start <= now:
            raise Refused("past", code="past")
        if wanted.start < now + self.notice:
            raise Refused("too_soon", code="too_soon", notice=self.notice)
        if wanted.start >= self.last(now):
            raise Refused("too_far", code="too_far", days=self.ahead_days)
        for name, closed in self.closures:
            if closed.overlaps(wanted):
                raise Refused("closure", code="closure", closure=name)
        found = tuple(place for place in places if self.is_open(place, wanted))
        if not found:
            raise self._why_closed(places, wanted)
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

    def _why_closed(self, places: Sequence[Place], wanted: Period) -> Refused:
        day = wanted.start.astimezone(self.zone).date()
        spans = sorted(
            (span for place in places for span in open_spans(place.hours, day, self.zone)), key=lambda span: span.start
        )
        if any(span.contains(wanted) for span in spans):
            return Refused("cannot_be_had", code="closed", staff=_names(places))
        on_such_days = {"days": lambda wording: wording.on_days(day.weekday())}
        if not spans and len(places) == 1 and places[0].name:
            return Refused("not_there", code="closed", staff=places[0].name, **on_such_days)
        if not spans:
            return Refused("closed_on", code="closed", **on_such_days)
        if wanted.start < spans[0].start:
            return Refused("closed_until", code="closed", opens=self._clock(spans[0].start))
        closes = max(span.end for span in spans)
        if wanted.end > closes:
            return Refused("closed_from", code="closed", closes=self._clock(closes))
        return Refused("closed_between", code="closed", hours=self._hours(spans))

    def _clock(self, moment: datetime) -> Said:
        return lambda wording: wording.clock(moment.astimezone(self.zone))

    def _hours(self, spans: Sequence[Period]) -> Said:
        def said(wording: Wording) -> str:
            edges = [{"opens": self._clock(one.start), "closes": self._clock(one.end)} for one in spans]
            return wording.listed([wording.say("phrase.between", **pair) for pair in edges])

        return said


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


def _listed(services: Sequence[Offered]) -> Said:
    def one(wording: Wording, service: Offered) -> str:
        length = timedelta(minutes=service.minutes)
        if service.price:
            return wording.say("phrase.service_with_price", name=service.name, length=length, price=service.price)
        return wording.say("phrase.service", name=service.name, length=length)

    return lambda wording: ", ".join(one(wording, service) for service in services)


def _names(places: Sequence[Place]) -> str:
    return ", ".join(place.name for place in places)
