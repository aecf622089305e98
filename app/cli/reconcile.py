"""`reconcile`: they have so many, we have so many; what never arrived is filled in."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import click

from app.cli.output import DataCommand, Row, table
from app.cli.typed import MOMENT, of_org, platform
from app.services.reconciliation import comparing

_COLUMNS = ("id", "provider", "theirs", "ours", "missing", "filled", "foreign", "error")


def _in_words(done: Row) -> str:
    verb = "would be filled in" if done["dry_run"] else "filled in"
    count = done["missing"] if done["dry_run"] else done["filled"]
    lines = [f"They have {done['theirs']}, we have {done['ours']}; {count} {verb}."]
    lines.append(table(done["integrations"], _COLUMNS))
    return "\n".join(lines + ["It was ended before all were compared: run it again."] * (not done["complete"]))


@click.command("reconcile", cls=DataCommand, text=_in_words)
@of_org
@click.option("--since", type=MOMENT, help="From then on, within the window; without it from where it last came to.")
@click.option("--dry-run", is_flag=True, help="Only compare.")
def reconcile(org_id: UUID | None, since: datetime | None, *, dry_run: bool) -> Row:
    """Ask Vapi, Twilio and Google what they have, and take in what never arrived."""
    return comparing.compare(platform(), org_id=org_id, since=since, dry_run=dry_run)
