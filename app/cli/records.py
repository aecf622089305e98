"""`deliveries`, `calls`, `messages`, `appointments`: what came in and what became of it."""

from __future__ import annotations

import json
from uuid import UUID

import click

from app.cli.output import DataCommand, Row, sheet, table
from app.cli.typed import most, of_org, operator, platform
from app.services import inspection, routing

_ATTEMPTS = ("number", "started_at", "duration_ms", "outcome", "error_code", "error")


def _in_full(delivery: Row) -> str:
    """A delivery as a sheet, its attempts as a table, and what was said as JSON."""
    blocks = {name: delivery[name] for name in ("payload", "answer") if delivery[name] is not None}
    kept = {**blocks, "attempts_log": None}
    parts = [sheet({name: value for name, value in delivery.items() if name not in kept})]
    parts.append("attempts\n" + table(delivery["attempts_log"], _ATTEMPTS))
    parts += [f"{name}\n{json.dumps(block, indent=2, ensure_ascii=False)}" for name, block in blocks.items()]
    return "\n\n".join(parts)


@click.group()
def deliveries() -> None:
    """Deliveries: every event that came in or was planned here."""


@deliveries.command(
    "list",
    cls=DataCommand,
    columns=("id", "provider", "type", "status", "attempts", "received_at", "error_code", "note"),
)
@of_org
@click.option("--status", type=click.Choice(inspection.DELIVERY_STATUSES), help="Only those that stand there.")
@click.option("--provider", help="Only this provider's.")
@click.option("--type", "event_type", help="Only of this type.")
@click.option("--event-id", help="Only the one with this id at its provider.")
@click.option("--unowned", is_flag=True, help="Only those that no organization owns.")
@most
def list_deliveries(
    org_id: UUID | None, unowned: bool, limit: int, event_type: str | None, event_id: str | None, **equal: str | None
) -> list[Row]:
    """The newest first."""
    wanted = {**equal, "type": event_type, "event_key": event_id}
    if unowned:
        return inspection.unowned(platform(), limit=limit, **wanted)
    return inspection.deliveries(platform(), org_id=org_id, limit=limit, **wanted)


@deliveries.command("show", cls=DataCommand, text=_in_full)
@click.argument("delivery_id", type=click.IntRange(min=1))
def show_delivery(delivery_id: int) -> Row:
    """One delivery: every attempt, what it said, what was answered."""
    return inspection.delivery(platform(), delivery_id)


@deliveries.command("assign", cls=DataCommand)
@click.argument("delivery_id", type=click.IntRange(min=1))
@click.argument("org_id", type=click.UUID)
def assign_delivery(delivery_id: int, org_id: UUID) -> Row:
    """Give an event that no organization owns to one."""
    return routing.assign(platform(), delivery_id, org_id, actor=operator())


@click.group()
def calls() -> None:
    """Phone calls and web calls."""


@calls.command(
    "list", cls=DataCommand, columns=("id", "status", "customer_number", "started_at", "ended_reason", "cost")
)
@of_org
@most
def list_calls(org_id: UUID | None, limit: int) -> list[Row]:
    """The newest first."""
    return inspection.calls(platform(), org_id=org_id, limit=limit)


@click.group()
def messages() -> None:
    """Texts, in and out."""


@messages.command("list", cls=DataCommand, columns=("created_at", "channel", "from", "to", "status", "purpose", "body"))
@of_org
@most
def list_messages(org_id: UUID | None, limit: int) -> list[Row]:
    """The newest first."""
    return inspection.messages(platform(), org_id=org_id, limit=limit)


@click.group()
def appointments() -> None:
    """Appointments."""


@appointments.command(
    "list",
    cls=DataCommand,
    columns=("id", "starts_at", "name", "phone", "status", "calendar_action", "conflict"),
)
@of_org
@most
def list_appointments(org_id: UUID | None, limit: int) -> list[Row]:
    """The latest made first. CONFLICT: ``busy``, somebody entered something on top; ``moved``, onto another booking."""
    found = inspection.appointments(platform(), org_id=org_id, limit=limit)
    return [{**row, "conflict": _conflict(row)} for row in found]


def _conflict(row: Row) -> str | None:
    if row["external_conflict"]:
        return "moved"
    return "busy" if row["conflict_since"] else None
