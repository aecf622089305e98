"""`alerts`: what is wrong now."""

from __future__ import annotations

import click

from app.cli.output import DataCommand, Row
from app.cli.typed import platform
from app.services.alerts import open_alerts
from app.services.readable import fields

_SHOWN = ("key", "kind", "headline", "began_at", "seen_at", "told_at", "facts")


@click.group()
def alerts() -> None:
    """Alerts: what is wrong now, since when, and whether somebody has been told."""


@alerts.command("list", cls=DataCommand, columns=("headline", "began_at", "told_at", "facts"))
def list_alerts() -> list[Row]:
    """Every open alert, the longest first; docs/operations.md has a section for each kind."""
    return [fields(alert, _SHOWN) for alert in open_alerts(platform())]
