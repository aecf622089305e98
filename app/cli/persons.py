"""`person erase`: one person, known by a phone number, out of everything."""

from __future__ import annotations

from uuid import UUID

import click

from app.cli.output import DataCommand, Row
from app.cli.typed import VALUE, of_org, operator, platform
from app.services import erasure


@click.group()
def person() -> None:
    """Persons: what is known of one, by their phone number."""


@person.command("erase", cls=DataCommand, failed=lambda done: bool(done["left"]))
@click.argument("number", type=VALUE)
@of_org
@click.option("--dry-run", is_flag=True, help="Only say how much there is.")
def erase_person(number: str, org_id: UUID | None, *, dry_run: bool) -> Row:
    """Erase all that was said by, to and of the number NUMBER (@FILE keeps it out of the shell's history)."""
    return erasure.erase(platform(), number, actor=operator(), org_id=org_id, dry_run=dry_run)
