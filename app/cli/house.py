"""Commands about the house itself: its tools for assistants, its database roles, its keys."""

from __future__ import annotations

import click
from flask.cli import with_appcontext

from app.cli.output import DataCommand, Row
from app.cli.typed import platform
from app.services import installation, isolated_attempt
from app.services.tools import TOOLS


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
@with_appcontext
def deliver_isolated() -> None:
    """Attempts at deliveries that may kill their process, each in a fork of this one, for the parent process."""
    here = platform()
    here.kind = "cli"  # its attempts say so
    click.get_current_context().exit(isolated_attempt.serve(here, orders=0, answers=1))
