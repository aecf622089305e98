"""`key`: the API keys of organizations, made, listed, rotated and revoked by hand."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import click

from app.cli.output import DataCommand, Row
from app.cli.typed import of_org, operator, platform
from app.services import api_keys


@click.group()
def key() -> None:
    """API keys: what programs show to use the API for an organization."""


@key.command("create", cls=DataCommand)
@click.argument("org_id", type=click.UUID)
@click.option("--scope", "scopes", type=click.Choice(api_keys.SCOPES), multiple=True, help="Both, if none is given.")
@click.option("--label", help="What it is for.")
@click.option("--days", type=click.IntRange(1, 3650), help="Valid for so long; for ever without it.")
def create(org_id: UUID, scopes: tuple[str, ...], label: str | None, days: int | None) -> Row:
    """Make a key; it is shown only now."""
    return api_keys.create(
        platform(),
        org_id,
        scopes=list(scopes or api_keys.SCOPES),
        label=label,
        lasts=timedelta(days=days) if days else None,
        actor=operator(),
    )


@key.command("list", cls=DataCommand, columns=("prefix", "label", "scopes", "last_used_at", "expires_at", "revoked_at"))
@of_org
def list_keys(org_id: UUID | None) -> list[Row]:
    """All keys by their first characters; revoked ones too."""
    return api_keys.list_all(platform(), org_id)


@key.command("rotate", cls=DataCommand)
@click.argument("prefix")
@click.option(
    "--overlap", type=click.FloatRange(0), default=24, show_default=True, help="Hours the old one still works."
)
def rotate(prefix: str, overlap: float) -> Row:
    """Make a key that may do the same; the old one ends after the overlap."""
    return api_keys.rotate(platform(), prefix, overlap=timedelta(hours=min(overlap, 1e6)), actor=operator())


@key.command("revoke", cls=DataCommand)
@click.argument("prefix")
def revoke(prefix: str) -> Row:
    """End a key now; every process refuses it within five seconds."""
    return api_keys.revoke(platform(), prefix, actor=operator())
