"""`monitoring`: whether those who must be told would be."""

from __future__ import annotations

import click

from app.cli.output import DataCommand, Row
from app.cli.typed import platform
from app.services import monitoring as service


def _in_words(found: list[Row]) -> str:
    lines = []
    for row in found:
        lines.append(f"{row['channel']:<14}{row['result']:<16}{row['told']}")
        if row["fix"]:
            lines.append(f"{'':<30}{row['fix']}")
    return "\n".join(lines)


@click.group()
def monitoring() -> None:
    """Monitoring: error counts, Sentry, Slack."""


@monitoring.command("verify", cls=DataCommand, text=_in_words, failed=lambda found: not service.all_arrived(found))
def verify() -> list[Row]:
    """Send one marked error and one marked alert, and see that each arrives; exit code 1 when one did not."""
    return service.verify(platform())
