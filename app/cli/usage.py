"""`usage`, and `org limit`: what organizations use in a month, and when somebody wants to hear of it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from uuid import UUID

import click

from app.cli.organizations import org
from app.cli.output import DataCommand, Row, table
from app.cli.typed import of_org, operator, platform
from app.services import usage as services


def _told(rows: list[Row]) -> str:
    shown = [
        {
            "organization": row["name"],
            "month": row["month"],
            **{name: row[name] for name in ("calls", "minutes", "texts")},
            **{f"{name} $": cost and f"{Decimal(cost):.2f}" for name, cost in row["cost"].items()},
            "limits": ", ".join(f"{kind} {limit['percent']} %" for kind, limit in row["limits"].items()),
        }
        for row in rows
    ]
    return table(shown)


@click.command("usage", cls=DataCommand, text=_told)
@of_org
@click.option("--month", metavar="YYYY-MM", help="Another month than this one.")
def usage(org_id: UUID | None, month: str | None) -> list[Row]:
    """Calls, minutes, texts and cost by provider, each month in the organization's own time zone."""
    return [one.row() for one in services.of_all(platform(), month=month, org_id=org_id)]


@org.command("limit", cls=DataCommand)
@click.argument("org_id", type=click.UUID)
@click.option("--cost", type=float, help="US dollars a month; 0 for none.")
@click.option("--minutes", type=float, help="Minutes of calls a month; 0 for none.")
@click.option("--texts", type=int, help="Texts sent a month; 0 for none.")
def limit(org_id: UUID, **given: Any) -> Row:
    """Alert when 50, 70, 90 and 100 % of a monthly limit are used. Nothing is ever refused because of it."""
    limits = {kind: Decimal(str(most)) for kind, most in given.items() if most is not None}
    return services.change_limits(platform(), org_id, limits, actor=operator())
