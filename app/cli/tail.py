"""`tail`: events as they come in and end, a line each, until Ctrl-C."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from uuid import UUID

import click
from flask.cli import with_appcontext

from app.cli.output import Row
from app.cli.typed import of_org, platform
from app.errors import VoicedeskError
from app.services import following


@click.command("tail")
@of_org
@click.option("--json", "as_json", is_flag=True, help="A JSON object a line.")
@click.option("--every", type=click.FloatRange(0.1, 60), default=1.0, show_default=True, help="Look every so many s.")
@click.option("--seconds", type=click.FloatRange(0, 86_400), help="End after so many; else with Ctrl-C.")
@with_appcontext
def tail(org_id: UUID | None, as_json: bool, every: float, seconds: float | None) -> None:
    """Follow events as they come in and as they end, beginning now."""
    tell = json.dumps if as_json else _line
    try:
        for row in following.follow(platform(), org_id=org_id, every_seconds=every, seconds=seconds):
            click.echo(tell(row))
            sys.stdout.flush()
    except KeyboardInterrupt:
        return
    except BrokenPipeError:  # whoever read along has gone; nothing may be written at the end either
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except VoicedeskError as error:
        message = json.dumps({"error": {"code": error.code, "message": str(error)}}) if as_json else f"Error: {error}"
        click.echo(message, err=True)
        click.get_current_context().exit(1)


def _line(row: Row) -> str:
    at = str(row["at"])[11:19]
    if row["what"] == "database_away":
        return f"{at}  the database does not answer; looking again"
    why = " ".join(str(row[name]) for name in ("error_code", "note") if row.get(name))
    return f"{at}  {row['what']:<9}  {row['provider']} {row['type']}  {row['id']}  {row['org_id']}  {why}".rstrip()
