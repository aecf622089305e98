"""`deliveries replay`: one by its id, or many by what they have in common; and what that would do, without doing it."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import click

from app.cli.output import DataCommand, Row, table
from app.cli.records import deliveries
from app.cli.typed import MOMENT, most, of_org, operator, platform
from app.models.deliveries import DeliveryFilter
from app.services import replay

_LISTED = ("id", "type", "status", "error_code", "would_do", "would_repeat_if_asked")


def _in_words(done: Row) -> str:
    if done.get("dry_run"):
        return _previewed(done)
    taker = "a worker has been told" if done["bell_rung"] else "no Redis: a web process takes it in its next sweep"
    again = f" {done['repeated']} recorded effects are done once more." if done["repeated"] else ""
    if "id" in done:
        lines = [f"Delivery {done['id']} is back in the queue; {taker}.{again}"]
        if done["recorded_effects"]:
            head = "Recorded already" + (":" if again else ", and not done again:")
            lines += [head, table(done["recorded_effects"])]
        return "\n".join(lines)
    if not done["replayed"]:
        taker = "nothing to do"
    lines = [f"{done['replayed']} deliveries are back in the queue; {taker}.{again}"]
    if done["not_replayed"]:
        lines += ["Not replayed:", table(done["not_replayed"])]
    return "\n".join(lines + ["There are more than the limit: run it again."] * done["more"])


def _previewed(would: Row) -> str:
    rows = [
        {**one, "would_repeat_if_asked": [effect["again"] for effect in one["would_repeat_if_asked"]]}
        for one in would["deliveries"]
    ]
    lines = [
        f"{would['would_replay']} deliveries would be replayed; {would['would_repeat_if_asked']} recorded effects"
        " would be done again with --repeat-effects, and are not without it.",
        table(rows, _LISTED),
    ]
    if would["not_replayable"]:
        lines += ["Cannot be replayed:", table(would["not_replayable"])]
    return "\n".join(lines + ["There are more than the limit."] * would["more"])


@deliveries.command("replay", cls=DataCommand, text=_in_words)
@click.argument("delivery_id", type=click.IntRange(min=1), required=False)
@click.option(
    "--status", type=click.Choice(replay.FINISHED), help="Those that ended so (dead, if other filters say nothing)."
)
@click.option("--provider", help="Only of this provider.")
@click.option("--type", "event_type", help="Only of this type.")
@of_org
@click.option("--since", type=MOMENT, help="Only what came in from then on; 24h: in the last 24 hours.")
@click.option("--until", type=MOMENT, help="Only what came in before.")
@click.option("--dry-run", is_flag=True, help="Only list them, with the effects that each would do and repeat.")
@click.option("--repeat-effects", is_flag=True, help="Do recorded effects once more: send texts again.")
@most
@click.pass_context
def replay_deliveries(
    ctx: click.Context,
    delivery_id: int | None,
    status: str | None,
    provider: str | None,
    event_type: str | None,
    org_id: UUID | None,
    since: datetime | None,
    until: datetime | None,
    *,
    dry_run: bool,
    repeat_effects: bool,
    limit: int,
) -> Row:
    """Deliver finished ones again, one by its id or many by filter; recorded effects are not repeated by itself."""
    given = [value for value in (status, provider, event_type, org_id, since, until) if value is not None]
    if (delivery_id is None) is not bool(given):
        raise click.UsageError("give a delivery's id, or filters such as --status dead; not both", ctx)
    if delivery_id is not None:
        if dry_run:
            one = replay.preview(platform(), delivery_id)
            again = len(one["would_repeat_if_asked"])
            return {
                "dry_run": True,
                "would_replay": 1,
                "would_repeat_if_asked": again,
                "deliveries": [one],
                "not_replayable": [],
                "more": False,
            }
        return replay.replay(platform(), delivery_id, actor=operator(), repeat_effects=repeat_effects)
    wanted = DeliveryFilter(status or "dead", org_id, provider, event_type, since, until)
    if dry_run:
        return replay.preview_many(platform(), wanted, limit=limit)
    return replay.replay_many(platform(), wanted, actor=operator(), limit=limit, repeat_effects=repeat_effects)
