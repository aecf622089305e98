"""`forward`: an organization's own URL, where the events of its front doors are sent on to."""

from __future__ import annotations

from uuid import UUID

import click

from app.cli.output import DataCommand, Row
from app.cli.typed import VALUE, operator, platform
from app.services import forward_targets


@click.group()
def forward() -> None:
    """Forwarding: what comes in by a front door, sent on to the organization's own URL, signed."""


@forward.command("set", cls=DataCommand)
@click.argument("org_id", type=click.UUID)
@click.argument("url", type=VALUE)
def set_url(org_id: UUID, url: str) -> Row:
    """Forward an organization's events to its own https URL; the first time its signing secret is shown."""
    return forward_targets.set_url(platform(), org_id, url, actor=operator())


@forward.command("show", cls=DataCommand)
@click.argument("org_id", type=click.UUID)
def show(org_id: UUID) -> Row:
    """Where an organization's events go, and whether they do; never the secret."""
    return forward_targets.show(platform(), org_id)


@forward.command("rotate", cls=DataCommand)
@click.argument("org_id", type=click.UUID)
@click.option("--overlap", type=click.FloatRange(0, 720), default=24, show_default=True, help="Hours for the old one.")
def rotate(org_id: UUID, overlap: float) -> Row:
    """Make a new signing secret; until the overlap is over, each event is signed with both."""
    return forward_targets.rotate(platform(), org_id, overlap_hours=overlap, actor=operator())


@forward.command("off", cls=DataCommand)
@click.argument("org_id", type=click.UUID)
def off(org_id: UUID) -> Row:
    """Keep events and forward none; URL and secret stay."""
    return forward_targets.switch_off(platform(), org_id, actor=operator())
