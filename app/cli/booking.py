"""`service`, `staff` and `closure`: what a business offers, with whom, and when it is closed against its hours."""

from __future__ import annotations

import json
from typing import Any, TextIO
from uuid import UUID

import click

from app.cli.output import DataCommand, Row
from app.cli.typed import of_org, operator, platform
from app.errors import InvalidInput
from app.services import booking_setup

_active = click.option("--active/--inactive", default=None, help="Whether it can be booked.")
_hours = click.option("--hours", type=click.File("r", encoding="utf-8"), help="Hours of their own: a JSON file, or - .")
_does = click.option("--service", "does", multiple=True, metavar="NAME", help="A service they do; none: all of them.")


@click.group()
def service() -> None:
    """Services: what can be booked."""


@service.command("add", cls=DataCommand)
@click.argument("org_id", type=click.UUID)
@click.argument("name")
@click.option("--minutes", type=int, required=True, help="How long it takes.")
@click.option("--before", "buffer_before", type=int, help="Minutes before it that nobody else may have.")
@click.option("--after", "buffer_after", type=int, help="Minutes after it that nobody else may have.")
@click.option("--price", help="As it is said: from 25 euros.")
def add_service(org_id: UUID, **given: Any) -> Row:
    """Offer a service."""
    return booking_setup.add_service(platform(), org_id, _given(given), actor=operator())


@service.command("set", cls=DataCommand)
@click.argument("service_id", type=click.UUID)
@click.option("--name")
@click.option("--minutes", type=int)
@click.option("--before", "buffer_before", type=int)
@click.option("--after", "buffer_after", type=int)
@click.option("--price", help="Empty: none is said.")
@_active
def set_service(service_id: UUID, **given: Any) -> Row:
    """Set some of a service's facts; what is booked already keeps its time."""
    return booking_setup.change_service(platform(), service_id, _given(given), actor=operator())


@service.command("list", cls=DataCommand, columns=("id", "name", "minutes", "buffer_before", "buffer_after", "active"))
@of_org
def list_services(org_id: UUID | None) -> list[Row]:
    """All services."""
    return booking_setup.services(platform(), org_id)


@click.group()
def staff() -> None:
    """Staff and rooms: with whom or where something is booked."""


@staff.command("add", cls=DataCommand)
@click.argument("org_id", type=click.UUID)
@click.argument("name")
@click.option("--room", "kind", flag_value="room", help="A room, not a person.")
@click.option("--calendar", "calendar_id", help="Google's id of their own calendar, in the organization's account.")
@_hours
@click.option("--seats", type=int, help="How many at once.")
@_does
def add_staff(org_id: UUID, hours: TextIO | None, does: tuple[str, ...], **given: Any) -> Row:
    """Add a person or a room. Once there is one, everything is booked with somebody."""
    return booking_setup.add_staff(platform(), org_id, _given(given, hours), does=does, actor=operator())


@staff.command("set", cls=DataCommand)
@click.argument("staff_id", type=click.UUID)
@click.option("--name")
@click.option("--calendar", "calendar_id", help="Empty: the organization's.")
@_hours
@click.option("--seats", type=int)
@_does
@_active
def set_staff(staff_id: UUID, hours: TextIO | None, does: tuple[str, ...], **given: Any) -> Row:
    """Set some of their facts. `--service all`: every service; hours of {} are the organization's."""
    return booking_setup.change_staff(platform(), staff_id, _given(given, hours), does=does, actor=operator())


@staff.command("list", cls=DataCommand, columns=("id", "name", "kind", "seats", "services", "active"))
@of_org
def list_staff(org_id: UUID | None) -> list[Row]:
    """All staff and rooms."""
    return booking_setup.staff(platform(), org_id)


@click.group()
def closure() -> None:
    """Closures: holidays and other times in which nothing is booked."""


@closure.command("add", cls=DataCommand)
@click.argument("org_id", type=click.UUID)
@click.argument("name")
@click.argument("start")
@click.option("--until", "end", help="The last day, or the time when it ends.")
@click.option("--staff", "with_whom", help="Only this person or room.")
def add_closure(org_id: UUID, name: str, start: str, end: str | None, with_whom: str | None) -> Row:
    """Close from START on: a date such as 2026-12-24, or a local time such as 2026-12-24T12:00."""
    return booking_setup.add_closure(
        platform(), org_id, name=name, start=start, end=end, with_whom=with_whom, actor=operator()
    )


@closure.command("remove", cls=DataCommand)
@click.argument("closure_id", type=click.UUID)
def remove_closure(closure_id: UUID) -> Row:
    """Open again."""
    return booking_setup.remove_closure(platform(), closure_id, actor=operator())


@closure.command("list", cls=DataCommand, columns=("id", "name", "starts_at", "ends_at"))
@of_org
def list_closures(org_id: UUID | None) -> list[Row]:
    """All closures that are not over."""
    return booking_setup.closures(platform(), org_id)


def _given(options: dict[str, Any], hours: TextIO | None = None) -> dict[str, Any]:
    facts = {name: value for name, value in options.items() if value is not None}
    if hours is not None:
        try:
            facts["opening_hours"] = json.load(hours)
        except ValueError:
            raise InvalidInput("hours: the file is not JSON") from None
    return facts
