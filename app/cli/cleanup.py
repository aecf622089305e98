"""`cleanup`: what every night does, by hand."""

from __future__ import annotations

import time
from collections.abc import Callable

import click

from app.cli.output import DataCommand, Row
from app.cli.typed import platform
from app.services import cleanup as service

TELL_SECONDS = 1.0


def _teller() -> Callable[[dict[str, int]], None]:
    """Progress on stderr, a line a second: stdout is for the result."""
    last = time.monotonic()

    def tell(gone: dict[str, int]) -> None:
        nonlocal last
        if time.monotonic() - last >= TELL_SECONDS:
            last = time.monotonic()
            click.echo(", ".join(f"{number} {name}" for name, number in gone.items() if number) + " so far", err=True)

    return tell


@click.command("cleanup", cls=DataCommand)
@click.option("--dry-run", is_flag=True, help="Only count what would go.")
def cleanup(dry_run: bool) -> Row:
    """Delete what is finished and old (dedup keys, deliveries, answers, ended alerts), and words past retention."""
    if dry_run:
        return service.what_would_go(platform())
    return service.clean_up(platform(), tell=_teller())
