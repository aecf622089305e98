"""`org` and `integration`: who the customers are and how they are connected."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any, TextIO
from uuid import UUID

import click

from app.cli.output import DataCommand, Row
from app.cli.typed import PAIR, of_org, operator, platform
from app.errors import InvalidInput
from app.services import connections, moving_in, moving_out, organizations, quarantine, verification

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
@click.option("--vapi-phone-number", help="Vapi's id of its phone number, where one Vapi account serves many.")
@click.option("--twilio-account", help="Its subaccount (AC...), where one Twilio account serves many.")
@click.option("--messaging-service", help="Its Messaging Service (MG...) there.")
@click.option("--whatsapp-sender", help="Its WhatsApp sender there, E.164.")
@click.option("--hours", type=click.File("r", encoding="utf-8"), help="Opening hours: a JSON file, or - .")
@click.option("--slot", type=int, help="How long an appointment is, in minutes; or the step between two services.")
@click.option("--notice", type=int, help="How many minutes before, at the latest, something is booked.")
@click.option("--ahead", type=int, help="How many days ahead, at most; 0: any.")
@click.option("--seats", type=int, help="How many at once, where no staff or rooms are named.")
@click.option("--retention", type=int, help="Days that transcripts, recordings and texts are kept; 0: not stored.")
@click.option("--consent", help="The sentence of consent that calls begin with; empty: none.")
@click.option("--language", help="What callers and customers are told in: en, es or de.")
@click.option("--reminders/--no-reminders", default=None, help="Text customers the day before.")
@click.option("--quiet", help="When nobody is reminded, in local time: 21:00-08:00; empty: never.")
@click.option("--notify", help="Who at the business is texted, E.164; empty: nobody.")
@click.option("--notify-about", help="About what: bookings,changes,unfinished.")
@click.option("--sms-instead/--no-sms-instead", default=None, help="SMS may carry what WhatsApp does not take.")
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


@org.command("suspend", cls=DataCommand)
@click.argument("org_id", type=click.UUID)
def suspend(org_id: UUID) -> Row:
    """Keep what comes in, send nothing out; callers hear a sentence."""
    return moving_out.suspend(platform(), org_id, actor=operator())


@org.command("resume", cls=DataCommand)
@click.argument("org_id", type=click.UUID)
def resume(org_id: UUID) -> Row:
    """Go on with a suspended organization, beginning with what waits."""
    return moving_out.resume(platform(), org_id, actor=operator())


@org.command("export", cls=DataCommand)
@click.argument("org_id", type=click.UUID)
@click.option("--out", type=click.Path(dir_okay=False, writable=True), required=True, help="A file that is made new.")
def export(org_id: UUID, out: str) -> Row:
    """Write all of an organization as JSON lines; no secret is among them."""
    return moving_out.export(platform(), org_id, Path(out), actor=operator())


@org.command("delete", cls=DataCommand)
@click.argument("org_id", type=click.UUID)
@click.option("--yes", is_flag=True, help="It cannot be undone.")
def delete(org_id: UUID, yes: bool) -> Row:
    """Delete all of an organization, what waits included."""
    if not yes:
        raise InvalidInput("deleting cannot be undone: export it first, then add --yes")
    return moving_out.delete(platform(), org_id, actor=operator())


@org.command(
    "import", cls=DataCommand, columns=("row", "name", "result", "id", "changed", "errors"), failed=moving_in.has_failed
)
@click.argument("file", type=click.File("r", encoding="utf-8"))
@click.option("--dry-run", is_flag=True, help="Say what would be done.")
def import_organizations(file: TextIO, dry_run: bool) -> list[Row]:
    """Make or change organizations from a JSON or CSV file; safe to run twice."""
    return moving_in.run(platform(), file.read(), dry_run=dry_run, actor=operator())


_WORKED_WITH = ", ".join(name for name in connections.PROVIDER_NAMES if name not in connections.FRONT_DOORS)
_DOORS = ", ".join(connections.FRONT_DOORS)
_PROVIDERS = f"Providers: {_WORKED_WITH}; and front doors, whose events are stored and forwarded: {_DOORS}."
_KEYS = "\n\n".join(f"{name}: {', '.join(keys)}" for name, keys in connections.KEYS_OF.items())


@click.group(epilog=_PROVIDERS)
def integration() -> None:
    """Integrations: what an organization, or the platform for many, is connected to."""


@integration.command("add", cls=DataCommand, epilog=f"{_PROVIDERS}\n\nKeys:\n\n{_KEYS}")
@click.argument("words", nargs=-1, required=True, metavar="[ORG] PROVIDER")
@click.option("--platform", "of_platform", is_flag=True, help="One account for many organizations; without ORG.")
@_settings
def add(words: tuple[str, ...], of_platform: bool, pairs: tuple[tuple[str, str], ...]) -> Row:
    """Connect an organization, or with --platform all that have no own, to a provider; prints where it is to post."""
    org_id, provider = _whose(words, of_platform=of_platform)
    return connections.add(platform(), org_id, provider, dict(pairs), actor=operator())


@integration.command(
    "list", cls=DataCommand, columns=("id", "provider", "verification", "would_refuse", "disabled_at", "keys")
)
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


@integration.command("rotate", cls=DataCommand)
@click.argument("integration_id", type=click.UUID)
@click.option("--set", "pairs", type=PAIR, multiple=True, metavar="KEY=VALUE", help="VALUE may be @file.")
@click.option("--overlap", type=click.FloatRange(0, 720), default=24, show_default=True, help="Hours for the old ones.")
def rotate(integration_id: UUID, pairs: tuple[tuple[str, str], ...], overlap: float) -> Row:
    """Set new secrets; the old ones pass beside them until the overlap is over. `--overlap 0` alone ends one now."""
    hours = timedelta(hours=overlap)
    return connections.rotate(platform(), integration_id, dict(pairs), overlap=hours, actor=operator())


@integration.command("set-verification", cls=DataCommand)
@click.argument("integration_id", type=click.UUID)
@click.argument("mode", type=click.Choice(verification.MODES))
def set_verification(integration_id: UUID, mode: str) -> Row:
    """What is done with a webhook whose proof does not hold: refuse it, take it all the same, or keep it."""
    return connections.set_verification(platform(), integration_id, mode, actor=operator())


@integration.command("replay-quarantine", cls=DataCommand)
@click.argument("integration_id", type=click.UUID)
def replay_quarantine(integration_id: UUID) -> Row:
    """Verify again what is kept, with the mended secret, and take in what passes."""
    return quarantine.replay(platform(), integration_id, actor=operator())


def _whose(words: tuple[str, ...], *, of_platform: bool) -> tuple[UUID | None, str]:
    """Organization and provider as typed: two words, or one with --platform. Raises InvalidInput."""
    if len(words) != (1 if of_platform else 2):
        raise InvalidInput("name ORG and PROVIDER, or --platform and PROVIDER")
    context = click.get_current_context()
    provider = click.Choice(connections.PROVIDER_NAMES).convert(words[-1], None, context)
    return (None if of_platform else click.UUID.convert(words[0], None, context)), provider


def _read_hours(file: TextIO) -> Any:
    try:
        return json.load(file)
    except ValueError:
        raise InvalidInput("hours: the file is not JSON") from None
