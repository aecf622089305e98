"""`org` and `integration`: who the customers are and how they are connected."""

from __future__ import annotations

import json
from typing import Any, TextIO
from uuid import UUID

import click

from app.cli.output import DataCommand, Row
from app.cli.typed import PAIR, of_org, operator, platform
from app.errors import InvalidInput
from app.services import connections, organizations

_settings = click.option(
    "--set", "pairs", type=PAIR, multiple=True, required=True, metavar="KEY=VALUE", help="VALUE may be @file."
)


@click.group()
def org() -> None:
    """Organizations: the businesses whose calls are answered."""


@org.command("create", cls=DataCommand)
@click.argument("name")
@click.option("--timezone", required=True, help="An IANA name, such as Europe/Berlin.")
def create(name: str, timezone: str) -> Row:
    """Make an organization; its API key is shown only now."""
    return organizations.create(platform(), name=name, timezone=timezone, actor=operator())


@org.command("set", cls=DataCommand)
@click.argument("org_id", type=click.UUID)
@click.option("--name")
@click.option("--timezone", help="An IANA name.")
@click.option("--number", help="The business's own number, E.164.")
@click.option("--transfer", help="Who a caller is put through to, E.164.")
@click.option("--assistant", help="Vapi's id of the assistant that takes its calls.")
@click.option("--hours", type=click.File("r", encoding="utf-8"), help="Opening hours: a JSON file, or - .")
@click.option("--slot", type=int, help="How long an appointment is, in minutes.")
@click.option("--api-quota", type=int, help="API requests an hour; 0 for what the settings say.")
@click.option("--webhook-quota", type=int, help="Webhooks an hour before it is last in turn; 0 for the settings'.")
def change(org_id: UUID, hours: TextIO | None, **given: Any) -> Row:
    """Set some of an organization's facts; the others stay."""
    changes = {name: value for name, value in given.items() if value is not None}
    if hours is not None:
        changes["hours"] = _read_hours(hours)
    return organizations.change(platform(), org_id, changes, actor=operator())


@org.command("list", cls=DataCommand, columns=("id", "name", "timezone", "number"))
def list_organizations() -> list[Row]:
    """All organizations."""
    return organizations.list_all(platform())


@org.command("show", cls=DataCommand)
@click.argument("org_id", type=click.UUID)
def show(org_id: UUID) -> Row:
    """All about one organization, except secrets."""
    return organizations.show(platform(), org_id)


@click.group()
def integration() -> None:
    """Integrations: an organization's connections to Vapi, Twilio and Google Calendar."""


@integration.command("add", cls=DataCommand)
@click.argument("org_id", type=click.UUID)
@click.argument("provider", type=click.Choice(connections.PROVIDER_NAMES))
@_settings
def add(org_id: UUID, provider: str, pairs: tuple[tuple[str, str], ...]) -> Row:
    """Connect an organization to a provider; prints where the provider is to post."""
    return connections.add(platform(), org_id, provider, dict(pairs), actor=operator())


@integration.command("list", cls=DataCommand, columns=("id", "provider", "disabled_at", "keys"))
@of_org
def list_integrations(org_id: UUID | None) -> list[Row]:
    """All connections and which keys are set; never a secret."""
    return connections.list_all(platform(), org_id)


@integration.command("set", cls=DataCommand)
@click.argument("integration_id", type=click.UUID)
@_settings
def set_keys(integration_id: UUID, pairs: tuple[tuple[str, str], ...]) -> Row:
    """Set some of a connection's keys; the others stay, an empty VALUE takes one away."""
    return connections.change(platform(), integration_id, dict(pairs), actor=operator())


@integration.command("disable", cls=DataCommand)
@click.argument("integration_id", type=click.UUID)
def disable(integration_id: UUID) -> Row:
    """Refuse its webhooks and send nothing through it any more."""
    return connections.disable(platform(), integration_id, actor=operator())


def _read_hours(file: TextIO) -> Any:
    try:
        return json.load(file)
    except ValueError:
        raise InvalidInput("hours: the file is not JSON") from None
