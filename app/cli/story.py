"""`story`: everything about one event, call or phone number, in order. For operators: it shows what was said."""

from __future__ import annotations

import textwrap
from uuid import UUID

import click

from app.cli.output import WIDTH, DataCommand, Row
from app.cli.typed import of_org, platform
from app.services import story as service


def _in_words(told: Row) -> str:
    lines, before = [], None
    for line in told["lines"]:
        if line["org_id"] != before:
            lines.append(f"organization {line['org_id']}")
            before = line["org_id"]
        at = (line["at"] or "now").replace("T", " ")
        head = f"{at:<26}{line['what']:<18} "
        paragraphs = line["told"].splitlines() or [""]
        for number, paragraph in enumerate(paragraphs):
            first = head if number == 0 else " " * len(head)
            lines += textwrap.wrap(
                paragraph, WIDTH, initial_indent=first, subsequent_indent=" " * len(head), break_long_words=False
            ) or [first.rstrip()]
    return "\n".join([*lines, *(f"({note})" for note in told["notes"])])


@click.command("story", cls=DataCommand, text=_in_words)
@click.argument("subject", metavar="EVENT|CALL|NUMBER")
@of_org
def story(subject: str, org_id: UUID | None) -> Row:
    """Received, verified, attempts, what was said, booked and texted, and what operators did."""
    return service.tell(platform(), subject, org_id=org_id)
