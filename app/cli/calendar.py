"""`calendar`: Google's push channels, and a sync when somebody does not want to wait for one."""

from __future__ import annotations

from uuid import UUID

import click

from app.cli.output import DataCommand, Row
from app.cli.typed import platform
from app.services import calendar_channels, calendar_sync


def _planned(done: Row) -> str:
    if done["delivery_id"] is None:
        return "A sync is planned already; it begins within seconds."
    return f"Planned as delivery {done['delivery_id']}; `deliveries show {done['delivery_id']}` tells how it went."


@click.group()
def calendar() -> None:
    """The calendar both ways: channels and syncs."""


@calendar.command("sync", cls=DataCommand, text=_planned)
@click.argument("org_id", type=click.UUID)
def sync_calendar(org_id: UUID) -> Row:
    """See now what people changed in the organization's calendar."""
    return {"org_id": str(org_id), "delivery_id": calendar_sync.request_now(platform(), org_id)}


@calendar.command(
    "channels", cls=DataCommand, columns=("org_id", "channel_id", "expires_at", "heard_at", "stopped_at", "synced_at")
)
def list_channels() -> list[Row]:
    """Google's push channels: until when, when last heard, and when their calendar was last read."""
    return calendar_channels.channels(platform())
