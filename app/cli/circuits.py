"""`circuits`: the breakers around every provider, seen and closed by hand."""

from __future__ import annotations

import click

from app.cli.output import DataCommand, Row
from app.cli.typed import operator, platform
from app.services import circuit_control


@click.command("circuits", cls=DataCommand)
@click.option("--reset", "name", type=click.Choice(circuit_control.CIRCUIT_NAMES), help="Close this one now.")
@click.option("--reset-all", "everything", is_flag=True, help="Close all now.")
def circuits(name: str | None, everything: bool) -> list[Row]:
    """How each circuit stands; an open one refuses all calls until a probe goes well, or it is reset."""
    if name or everything:
        return circuit_control.reset(platform(), None if everything else name, actor=operator())
    return circuit_control.show(platform())
