"""`simulate`: correctly signed, realistic traffic of each provider, to any server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import wraps
from typing import Any

import click

from app.cli.output import DataCommand, Row
from app.cli.typed import PAIR, VALUE
from app.errors import InvalidInput
from app.services import scenes, simulated_doors, simulated_google, simulated_twilio, simulated_vapi
from app.services import simulate as traffic
from app.services.simulate import Outgoing
from app.services.simulated_google import Push
from app.services.simulated_twilio import Text
from app.services.simulated_vapi import Proof, Scene

BODY_SHOWN = 2000


def _answered(data: Row | list[Row]) -> str:
    """One answer in full, of several a line each."""
    if isinstance(data, dict):
        return f"{data['status']} in {data['duration_ms']} ms\n{data['body'][:BODY_SHOWN]}".rstrip()
    return "\n".join(f"{told['status']} in {told['duration_ms']} ms  {told['body'][:60]}" for told in data)


def _sends(make_event: Callable[..., Callable[[], Outgoing]]) -> Callable[..., Row | list[Row]]:
    """Turn a maker of events into a command's body: the options all providers share, and the sending."""

    @click.option("--url", required=True, help="The webhook's whole URL.")
    @click.option("--secret", type=VALUE, required=True, help="What the provider proves itself with; may be @file.")
    @click.option("--times", type=click.IntRange(1, traffic.MOST_TIMES), help="Send so many; prints a list.")
    @click.option("--same", is_flag=True, help="With --times: the same event again, as a retry is.")
    @click.option("--tamper", is_flag=True, help="Alter one byte of the body after signing.")
    @wraps(make_event)
    def command(times: int | None, same: bool, tamper: bool, **given: Any) -> Row | list[Row]:
        told = traffic.run(make_event(**given), times=times or 1, same=same, tamper=tamper)
        return told if times else told[0]

    return command


@click.group()
def simulate() -> None:
    """Send what a provider would send, correctly signed. Any answer, also a refusal, is exit code 0."""


@simulate.command(
    "vapi",
    cls=DataCommand,
    text=_answered,
    epilog="Events: " + ", ".join(simulated_vapi.KNOWN) + "; any other name is sent as an envelope.",
)
@click.argument("event")
@_sends
@click.option("--scheme", type=click.Choice(simulated_vapi.SCHEMES), default="secret", show_default=True)
@click.option("--set", "hmac", type=PAIR, multiple=True, metavar="KEY=VALUE", help="An integration's hmac_* key.")
@click.option("--age", type=float, default=0.0, help="With hmac: signed so many seconds ago.")
@click.option("--public-url", help="What is signed instead of --url, where the URL is.")
@click.option("--call-id", help="A new one unless given.")
@click.option("--caller", help="The caller's number, E.164.")
@click.option("--web", is_flag=True, help="A web call: nobody has a number.")
@click.option("--number", help="The number that was dialled, E.164.")
@click.option("--assistant", "assistant_id")
@click.option("--status", help="Of a status-update: in-progress, ended, ...")
@click.option("--ended-reason")
@click.option("--tool", help="Of tool-calls: the tool's name.")
@click.option("--arg", "arguments", type=PAIR, multiple=True, metavar="KEY=VALUE", help="An argument of the tool.")
@click.option("--tool-call-id", help="A new one unless given.")
def vapi(
    event: str,
    url: str,
    secret: str,
    scheme: simulated_vapi.Scheme,
    hmac: tuple[tuple[str, str], ...],
    age: float,
    public_url: str | None,
    web: bool,
    arguments: tuple[tuple[str, str], ...],
    **given: str | None,
) -> Callable[[], Outgoing]:
    """A server message of Vapi's, of any type."""
    proof = Proof(secret, scheme, dict(hmac), timedelta(seconds=age))

    def make() -> Outgoing:
        scene = Scene(**_present(given), arguments=dict(arguments))
        if web:
            scene = replace(scene, caller=None)
        return simulated_vapi.request(event, scene, proof, url=url, public_url=public_url)

    return make


@simulate.command("twilio", cls=DataCommand, text=_answered)
@click.argument("event", type=click.Choice(simulated_twilio.EVENTS))
@_sends
@click.option("--public-url", help="What is signed instead of --url: the URL as Twilio knows it.")
@click.option("--from", "sender", help="E.164, or a WhatsApp user id.")
@click.option("--to", "recipient", help="E.164.")
@click.option("--body", help="What the text says.")
@click.option("--account-sid", help="The account's; an integration takes only its own.")
@click.option("--message-sid", help="A new one unless given.")
@click.option("--status", help="Of a status report: sent, delivered, undelivered, ...")
@click.option("--error-code", help="Of a status report.")
def twilio(event: str, url: str, secret: str, public_url: str | None, **given: str | None) -> Callable[[], Outgoing]:
    """A text that comes in, or a report on one that went out; --secret is the account's auth token."""
    return lambda: simulated_twilio.request(
        event, Text(**_present(given)), auth_token=secret, url=url, public_url=public_url
    )


@simulate.command("google-calendar", cls=DataCommand, text=_answered)
@click.argument("event", type=click.Choice(simulated_google.EVENTS))
@_sends
@click.option("--channel-id")
@click.option("--resource-id")
@click.option("--message-number", "number", type=click.IntRange(min=1), help="A higher one each time unless given.")
@click.option("--calendar", "calendar_id")
def google_calendar(event: str, url: str, secret: str, **given: Any) -> Callable[[], Outgoing]:
    """A notification of a push channel; --secret is the channel's token."""
    return lambda: simulated_google.request(event, Push(**_present(given)), channel_token=secret, url=url)


def _played(data: Row) -> str:
    lost = f"{data['lost']} were not taken by anybody" if data["lost"] else "nothing was lost on the way"
    return f"{data['scene']}: {len(data['steps'])} steps, {lost}"


def _tell_step(step: Row) -> None:
    """Progress on stderr: stdout is for the result."""
    answers = ", ".join(f"{times} x {status}" for status, times in step["answers"].items()) or "nothing to send"
    took = f"median {step['median_ms']} ms, slowest {step['slowest_ms']} ms" if step["sent"] else ""
    click.echo(f"{step['what']}: {answers}; {took}".rstrip("; "), err=True)


@simulate.command(
    "scene",
    cls=DataCommand,
    text=_played,
    epilog=" ".join(f"{name}: {(play.__doc__ or '').strip()}" for name, play in scenes.SCENES.items()),
)
@click.argument("name", type=click.Choice(list(scenes.SCENES)))
@click.option("--vapi", metavar="URL", help="Vapi's webhook, whole.")
@click.option("--vapi-secret", type=VALUE, help="Its webhook_secret; may be @file.")
@click.option("--twilio", metavar="URL", help="Twilio's webhook, whole.")
@click.option("--twilio-secret", type=VALUE, help="The account's auth token; may be @file.")
@click.option("--account-sid", help="The account's; an integration takes only its own.")
@click.option("--number", help="The business's number, E.164.")
@click.option("--assistant", "assistant_id", help="Vapi's id of the assistant.")
@click.option("--calls", type=click.IntRange(1, 1000), help="So many calls, and as many texts.")
@click.option("--seconds", type=click.FloatRange(0, 3600), help="Of an outage: so long the steady traffic.")
def scene(
    name: str,
    vapi: str | None,
    vapi_secret: str | None,
    twilio: str | None,
    twilio_secret: str | None,
    **given: Any,
) -> Row:
    """Play a busy day, an outage or a number moving in against any server, correctly signed."""
    town = scenes.Town(
        vapi=_door("vapi", vapi, vapi_secret), twilio=_door("twilio", twilio, twilio_secret), **_present(given)
    )
    town.tell = _tell_step
    return scenes.play(name, town)


def _door(provider: str, url: str | None, secret: str | None) -> scenes.Door | None:
    if (url is None) is not (secret is None):
        raise InvalidInput(f"--{provider} and --{provider}-secret belong together")
    return scenes.Door(url, secret) if url is not None and secret is not None else None


@simulate.command(
    "door",
    cls=DataCommand,
    text=_answered,
    epilog="\n\n".join(f"{provider}: {', '.join(events)}" for provider, events in simulated_doors.EVENTS.items()),
)
@click.argument("provider", type=click.Choice(tuple(simulated_doors.EVENTS)))
@click.argument("event")
@_sends
@click.option("--age", type=float, default=0.0, help="Signed so many seconds ago, where a time is signed.")
def door(provider: str, event: str, url: str, secret: str, age: float) -> Callable[[], Outgoing]:
    """An event of a front door, signed as its sender does; --secret is what that signs with."""
    old = timedelta(seconds=age)
    return lambda: simulated_doors.request(provider, event, secret=secret, url=url, age=old)


def _present(given: dict[str, Any]) -> dict[str, Any]:
    """What was typed; for the rest the scene has something realistic."""
    return {name: value for name, value in given.items() if value is not None}
