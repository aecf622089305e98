"""`credentials`: the encryption of what integrations keep."""

from __future__ import annotations

import click

from app.cli.output import DataCommand, Row
from app.cli.typed import operator, platform
from app.services import credential_rotation


@click.group()
def credentials() -> None:
    """Stored credentials: secrets of the integrations, encrypted with CREDENTIALS_KEYS."""


@credentials.command("rotate", cls=DataCommand, failed=lambda done: bool(done["unreadable"]))
def rotate() -> Row:
    """Encrypt all with the first key of CREDENTIALS_KEYS, while everything runs; safe to repeat."""
    return credential_rotation.rotate(platform(), actor=operator())
