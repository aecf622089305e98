"""Commands about the house itself: its tools for assistants, its database roles, its keys."""

from __future__ import annotations

from uuid import UUID

import click
from flask.cli import with_appcontext

from app.cli.output import DataCommand, Row
from app.cli.typed import platform
from app.errors import VoicedeskError
from app.services import installation, isolated_attempt
from app.services.tools import TOOLS

FINISHED, NOT_FINISHED = 0, 3


@click.command("tools", cls=DataCommand, always_json=True)
@click.option("--server-url", metavar="URL", help="Where Vapi is to send the tool calls: a webhook_url.")
def tools(server_url: str | None) -> list[Row]:
    """The assistant's tools in Vapi's own format, always as JSON."""
    return [tool.definition(server_url) for tool in TOOLS.values()]


def _what_was_done(data: Row) -> str:
    return "\n".join(data["done"]) or "Nothing was missing."


@click.command("db-roles", cls=DataCommand, text=_what_was_done)
def db_roles() -> Row:
    """Make the database roles that are missing; run it once a cluster, before `db upgrade`."""
    return {"done": installation.make_roles(platform().settings)}


@click.command("new-key", cls=DataCommand, text=lambda made: str(made["key"]))
def new_key() -> Row:
    """Make a key for CREDENTIALS_KEYS."""
    return {"key": installation.new_key()}


@click.command("deliver-isolated", hidden=True)
@click.argument("org_id", type=click.UUID)
@click.argument("lane_key")
@click.argument("token", type=int)
@click.argument("delivery_id", type=int)
@with_appcontext
def deliver_isolated(org_id: UUID, lane_key: str, token: int, delivery_id: int) -> None:
    """One attempt at a delivery that may kill its process, for the lane that the parent process holds."""
    here = platform()
    here.kind = "cli"  # its attempts say so
    try:
        finished = isolated_attempt.attempt(
            here, org_id=org_id, lane_key=lane_key, token=token, delivery_id=delivery_id
        )
    except VoicedeskError as error:
        raise click.ClickException(str(error)) from None
    click.get_current_context().exit(FINISHED if finished else NOT_FINISHED)
