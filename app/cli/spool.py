"""`spool`: what waits on this host's disk for the database, and taking it in by hand. Never shows what it says."""

from __future__ import annotations

import click

from app.cli.output import DataCommand, Row
from app.cli.typed import platform
from app.services import spool_upkeep


@click.group("spool")
def spool() -> None:
    """Webhooks on this host's disk that the database could not take."""


@spool.command("list", cls=DataCommand)
def show() -> Row:
    """How many wait, since when, how large it is, and whether it takes more."""
    return spool_upkeep.show(platform())


@spool.command("drain", cls=DataCommand)
@click.option(
    "--set-aside", is_flag=True, help="Also what could not be read: after its key or the software was mended."
)
def drain(set_aside: bool) -> Row:
    """Take in now what waits; safe beside the processes that do it by themselves, and to repeat."""
    return spool_upkeep.take_in(platform(), set_aside=set_aside)
