"""`settings`: whether the environment holds what the house needs. Runs also where nothing else starts."""

from __future__ import annotations

from dataclasses import asdict

import click

from app.cli.output import DataCommand, Row, table
from app.config import read_settings


def _in_words(found: Row) -> str:
    if found["faults"]:
        faults = "\n".join(f"{fault['variable']}: {fault['problem']}" for fault in found["faults"])
        return f"{faults}\n\n{len(found['faults'])} wrong; nothing starts like this."
    sheet = table([{"variable": name} for name in found["set"]]) if found["set"] else "(none)"
    return f"{sheet}\n\nSettings are fine for {found['environment']}; all others have their defaults."


@click.group()
def settings() -> None:
    """Settings: the variables of the environment."""


@settings.command("check", cls=DataCommand, text=_in_words, failed=lambda found: bool(found["faults"]))
def check() -> Row:
    """Check every variable and tell all faults at once; shows names, never a value."""
    read, faults = read_settings()
    return {
        "environment": read.environment.value if read else None,
        "faults": [asdict(fault) for fault in faults],
        "set": sorted(name.upper() for name in read.model_fields_set) if read else [],
    }
