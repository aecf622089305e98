"""`integration connect|apply|check`: what providers must be told, told by command."""

from __future__ import annotations

import sys
from uuid import UUID

import click

from app.cli.organizations import integration as integration  # with the commands of this file
from app.cli.output import DataCommand, Row
from app.cli.typed import operator, platform
from app.errors import InvalidInput
from app.services.connecting import applying, comparing, google, tunnel


def _invitation(made: Row) -> str:
    return f"Open this page as the calendar's owner, until {made['expires_at']}; it works once:\n\n{made['link']}"


@integration.command("connect", cls=DataCommand, text=_invitation)
@click.argument("provider", type=click.Choice(["google"]))
@click.argument("org_id", type=click.UUID)
@click.option("--calendar", "calendar_id", metavar="ID", help="The calendar to use; else the one used, or their own.")
def connect(provider: str, org_id: UUID, calendar_id: str | None) -> Row:
    """Print a page where the calendar's owner consents; good once, for 30 minutes."""
    return google.link(platform(), org_id, calendar_id=calendar_id)


def _told(found: Row) -> str:
    lines = [_line(one) for one in found["differences"]]
    if not lines:
        return "Everything is as it should be."
    end = "Done." if found["applied"] else "Nothing was changed. Add --yes to change what begins with *."
    return "\n".join([*lines, "", end])


def _checked(rows: list[Row]) -> str:
    return "\n".join(_line(row) for row in rows) or "Everything is as it should be."


def _line(one: Row) -> str:
    mark = "*" if one["mends"] else "!"
    return (
        f"{mark} {one['provider']} of {one['organization']}: {one['what']}\n"
        f"    is      {one['has']}\n    should  {one['should']}\n    fix     {one['fix']}"
    )


_COMPARED = f"Compared: {', '.join(comparing.COMPARED)}. What the sender of a front door has set cannot be asked for."


@integration.command("apply", cls=DataCommand, text=_told, epilog=_COMPARED)
@click.argument("integration_id", type=click.UUID)
@click.option("--yes", is_flag=True, help="Change it without asking.")
@click.option("--dev", is_flag=True, help="First try that PUBLIC_BASE_URL, a tunnel's, leads here unchanged.")
def apply(integration_id: UUID, yes: bool, dev: bool) -> Row:
    """Show what differs at the provider, and (asked, or with --yes) set it as it should be."""
    if dev:
        tunnel.check_road(platform(), integration_id)
    found = comparing.compare(platform(), integration_id)
    mendable = [one for one in found if one.mend is not None]
    if mendable and not yes and sys.stdin.isatty():
        click.echo("\n".join(_line(one.row()) for one in mendable), err=True)
        yes = click.confirm("Change this?", err=True)
    if yes and mendable:
        applying.apply(platform(), integration_id, mendable, actor=operator())
    return {
        "integration_id": str(integration_id),
        "applied": bool(yes and mendable),
        "differences": [one.row() for one in found],
    }


@integration.command("check", cls=DataCommand, text=_checked, failed=bool, epilog=_COMPARED)
@click.argument("integration_id", type=click.UUID, required=False)
@click.option("--all", "every", is_flag=True, help="All connections that are not disabled.")
def check(integration_id: UUID | None, every: bool) -> list[Row]:
    """What the provider has and should have otherwise, with a fix for each; exit code 1 when anything differs."""
    if (integration_id is None) is not every:
        raise InvalidInput("name one integration, or say --all")
    found = (
        comparing.compare_all(platform()) if integration_id is None else comparing.compare(platform(), integration_id)
    )
    return [one.row() for one in found]
