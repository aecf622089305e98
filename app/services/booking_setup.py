"""Services, staff, rooms and closures, as an operator sets them up.

Owns what they may be set to. What they mean for a time is ``booking_rules.py``'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.errors import InvalidInput, NotFound
from app.models.closures import Closure, find_closure, list_closures
from app.models.resources import Resource, find_resource, list_resources, services_by_resource, set_services
from app.models.services_offered import Service, find_service, list_services
from app.services import audit, organizations
from app.services.matching import match
from app.services.readable import fields
from app.services.slots import check_hours, parse_when

if TYPE_CHECKING:
    from app.services.platform import Platform

MINUTES, BUFFERS, SEATS = range(5, 1441), range(1441), range(1, 501)
LONGEST_NAME = 200
KINDS = ("staff", "room")

_SERVICE = ("id", "org_id", "name", "minutes", "buffer_before", "buffer_after", "price", "active")
_RESOURCE = ("id", "org_id", "name", "kind", "seats", "calendar_id", "hours=opening_hours", "active")
_CLOSURE = ("id", "org_id", "name", "starts_at", "ends_at", "resource_id")


def add_service(platform: Platform, org_id: UUID, facts: dict[str, Any], *, actor: str) -> dict[str, Any]:
    """Offer a service: ``name``, ``minutes``, and if wanted ``buffer_before``, ``buffer_after`` (minutes), ``price``.

    Raises InvalidInput, NotFound.
    """
    with platform.database.transaction(system=True) as session:
        organizations.get(session, org_id)
        row = Service(org_id=org_id, **_checked_service(facts))
        _store(session, row)
        audit.note(session, org_id, actor=actor, action="service.add", subject=str(row.id))
        return fields(row, _SERVICE)


def change_service(platform: Platform, service_id: UUID, facts: dict[str, Any], *, actor: str) -> dict[str, Any]:
    """Set some of its facts, ``active`` too; appointments that are there keep theirs. Raises as ``add_service``."""
    checked = _checked_service(facts)
    with platform.database.transaction(system=True) as session:
        row = find_service(session, service_id)
        if row is None:
            raise NotFound("no service has this id")
        _set(row, checked)
        _store(session, row)
        audit.note(session, row.org_id, actor=actor, action="service.set", subject=str(row.id), fields=sorted(checked))
        return fields(row, _SERVICE)


def services(platform: Platform, org_id: UUID | None) -> list[dict[str, Any]]:
    """All services, or one organization's, by name."""
    with platform.database.transaction(system=True) as session:
        return [fields(row, _SERVICE) for row in list_services(session, org_id)]


def add_staff(
    platform: Platform, org_id: UUID, facts: dict[str, Any], *, does: Sequence[str], actor: str
) -> dict[str, Any]:
    """A person or a room (``kind``): ``name``, and if wanted ``calendar_id``, ``hours``, ``seats``.

    ``does``: names of services; none: all of them. Raises InvalidInput, NotFound.
    """
    with platform.database.transaction(system=True) as session:
        organizations.get(session, org_id)
        row = Resource(org_id=org_id, **_checked_resource(facts))
        _store(session, row)
        set_services(session, row, _services_named(session, org_id, does))
        audit.note(session, org_id, actor=actor, action="staff.add", subject=str(row.id))
        return _shown_resource(session, row)


def change_staff(
    platform: Platform, resource_id: UUID, facts: dict[str, Any], *, does: Sequence[str], actor: str
) -> dict[str, Any]:
    """Set some of their facts, ``active`` too; an empty calendar or hours is the organization's again.

    With ``does`` they do these services and no others, with ``all`` every one. Raises as ``add_staff``.
    """
    checked = _checked_resource(facts) if facts else {}
    if not checked and not does:
        raise InvalidInput("nothing to set was given")
    with platform.database.transaction(system=True) as session:
        row = find_resource(session, resource_id)
        if row is None:
            raise NotFound("nobody has this id")
        _set(row, checked)
        _store(session, row)
        if does:
            set_services(session, row, [] if list(does) == ["all"] else _services_named(session, row.org_id, does))
        audit.note(session, row.org_id, actor=actor, action="staff.set", subject=str(row.id), fields=sorted(checked))
        return _shown_resource(session, row)


def staff(platform: Platform, org_id: UUID | None) -> list[dict[str, Any]]:
    """All staff and rooms, or one organization's, by name."""
    with platform.database.transaction(system=True) as session:
        return [_shown_resource(session, row) for row in list_resources(session, org_id)]


def add_closure(
    platform: Platform, org_id: UUID, *, name: str, start: str, end: str | None, with_whom: str | None, actor: str
) -> dict[str, Any]:
    """Close the business, or with a name one of its staff or rooms, from ``start`` to ``end``, in local time.

    Dates are whole days, the last one included; without an end a date is that one day. Raises InvalidInput, NotFound.
    """
    with platform.database.transaction(system=True) as session:
        zone = ZoneInfo(organizations.get(session, org_id).timezone)
        starts_at, ends_at = parse_when(start, zone), parse_when(end or start, zone, until=True)
        if starts_at >= ends_at:
            raise InvalidInput("a closure must begin before it ends; a time needs --until")
        whose = _one_named(list_resources(session, org_id), with_whom, "staff") if with_whom else None
        row = Closure(
            org_id=org_id,
            name=_name(name),
            starts_at=starts_at,
            ends_at=ends_at,
            resource_id=whose.id if whose else None,
        )
        session.add(row)
        session.flush()
        audit.note(session, org_id, actor=actor, action="closure.add", subject=str(row.id))
        return fields(row, _CLOSURE)


def remove_closure(platform: Platform, closure_id: UUID, *, actor: str) -> dict[str, Any]:
    """Open again. Raises NotFound."""
    with platform.database.transaction(system=True) as session:
        row = find_closure(session, closure_id)
        if row is None:
            raise NotFound("no closure has this id")
        removed = fields(row, _CLOSURE)
        session.delete(row)
        audit.note(session, row.org_id, actor=actor, action="closure.remove", subject=str(row.id))
        return removed


def closures(platform: Platform, org_id: UUID | None) -> list[dict[str, Any]]:
    """All closures that are not over, or one organization's, by time."""
    with platform.database.transaction(system=True) as session:
        return [fields(row, _CLOSURE) for row in list_closures(session, org_id, after=datetime.now(UTC))]


def _shown_resource(session: Session, row: Resource) -> dict[str, Any]:
    does = services_by_resource(session, row.org_id).get(row.id, set())
    names = [one.name for one in list_services(session, row.org_id) if one.id in does]
    return {**fields(row, _RESOURCE), "services": names or "all"}


def _checked_service(facts: dict[str, Any]) -> dict[str, Any]:
    return _checked(
        facts,
        {
            "name": _name,
            "minutes": lambda given: _within(given, MINUTES, "minutes"),
            "buffer_before": lambda given: _within(given, BUFFERS, "before"),
            "buffer_after": lambda given: _within(given, BUFFERS, "after"),
            "price": lambda given: given.strip() or None,
            "active": bool,
        },
    )


def _checked_resource(facts: dict[str, Any]) -> dict[str, Any]:
    return _checked(
        facts,
        {
            "name": _name,
            "kind": str,
            "calendar_id": lambda given: given.strip() or None,
            "opening_hours": lambda given: check_hours(given) or None,
            "seats": lambda given: _within(given, SEATS, "seats"),
            "active": bool,
        },
    )


def _checked(facts: dict[str, Any], checks: dict[str, Any]) -> dict[str, Any]:
    if not facts:
        raise InvalidInput("nothing to set was given")
    return {name: checks[name](value) for name, value in facts.items()}


def _set(row: Service | Resource, facts: dict[str, Any]) -> None:
    for name, value in facts.items():
        setattr(row, name, value)


def _store(session: Session, row: Service | Resource) -> None:
    try:
        with session.begin_nested():
            session.add(row)
            session.flush()
    except IntegrityError:
        raise InvalidInput("that name is there already, in capitals or not", code="already_exists") from None


def _services_named(session: Session, org_id: UUID, names: Sequence[str]) -> list[UUID]:
    offered = list_services(session, org_id)
    return [_one_named(offered, name, "service").id for name in names]


def _one_named(choices: Sequence[Any], name: str, what: str) -> Any:
    found = match(name, choices)
    if len(found) != 1:
        raise InvalidInput(f"{what}: that name means {'several' if found else 'none'} of them")
    return found[0]


def _name(said: str) -> str:
    name = " ".join(said.split())
    if not 0 < len(name) <= LONGEST_NAME:
        raise InvalidInput(f"name: 1 to {LONGEST_NAME} characters")
    return name


def _within(given: int, allowed: range, what: str) -> int:
    if given not in allowed:
        raise InvalidInput(f"{what}: {allowed.start} to {allowed.stop - 1}")
    return given
