"""Delivering finished events again: one or many, what it would do, and what is repeated only when asked."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from flask.testing import FlaskClient
from sqlalchemy import select, text, update

from app.errors import InvalidInput
from app.models import Delivery, Message, OperatorAction, ledger
from app.models.deliveries import DeliveryFilter
from app.services import replay
from app.services.drain import Drain
from app.services.messages import plan_text
from app.services.platform import Platform
from sandbox.standins import RemoteWorld
from tests.command_line import CommandLine
from tests.people import Business, People

CUSTOMER = "+4915112345678"
REFUSED = "+4915112345600"


def deliver(platform: Platform) -> None:
    Drain(platform, threads=2).run(seconds=10)


def plan(platform: Platform, business: Business, key: str, *, to: str = CUSTOMER) -> None:
    with platform.database.transaction(business.id) as session:
        plan_text(session, business.id, to=to, body=f"About {key}.", channel="sms", idempotency_key=key, purpose="test")


def sends(cli: CommandLine) -> list[dict[str, Any]]:
    return [row for row in cli.data("deliveries", "list") if row["type"] == "message.send"]


def test_all_that_died_of_one_cause_is_replayed_by_filter_and_done_now(
    cli: CommandLine, people: People, platform: Platform, world: RemoteWorld
) -> None:
    world.twilio_recipient(REFUSED, refuse=21211)
    for number in range(3):
        plan(platform, people.salon, f"salon-{number}", to=REFUSED)
    plan(platform, people.dental, "dental", to=REFUSED)
    plan(platform, people.salon, "fine")
    deliver(platform)
    assert len(cli.data("deliveries", "list", "--status", "dead")) == 4
    world.twilio_recipient(REFUSED)
    would = cli.data("deliveries", "replay", "--status", "dead", "--org", people.salon.id, "--dry-run")
    assert (would["would_replay"], would["would_repeat_if_asked"], would["more"]) == (3, 0, False)
    assert [one["would_do"] for one in would["deliveries"]] == [["send the text"]] * 3
    assert len(cli.data("deliveries", "list", "--status", "dead")) == 4  # only told

    done = cli.data("deliveries", "replay", "--status", "dead", "--org", people.salon.id, "--limit", 2)
    assert (done["replayed"], done["repeated"], done["not_replayed"], done["more"]) == (2, 0, [], True)
    done = cli.data("deliveries", "replay", "--type", "message.send", "--since", "1h")
    assert (done["replayed"], done["more"]) == (2, False)
    with platform.database.transaction(system=True) as session:
        session.execute(text("UPDATE lanes SET due_at = now()"))
        session.execute(text("UPDATE webhook_delivery_log SET next_attempt_at = now() WHERE finished_at IS NULL"))
    deliver(platform)
    assert {message["body"] for message in world.messages()} == {
        "About salon-0.", "About salon-1.", "About salon-2.", "About dental.", "About fine.",
    }  # fmt: skip
    assert len(world.messages()) == 5
    with platform.database.transaction(system=True) as session:
        assert ledger.balance(session).difference == 0
        trail = session.scalars(select(OperatorAction).where(OperatorAction.action == "replay.many")).all()
    assert {(line.org_id, line.details["deliveries"]) for line in trail} == {
        (people.salon.id, 2), (people.salon.id, 1), (people.dental.id, 1),
    }  # fmt: skip
    assert all(line.details["filter"]["status"] == "dead" for line in trail)


def test_many_replayed_at_once_are_due_one_after_the_other_and_stand_before_nothing_new(
    people: People, platform: Platform, client: FlaskClient
) -> None:
    for number in range(12):
        people.salon.vapi(client, {"type": "status-update", "status": "ringing", "call": {"id": f"call-{number}"}})
    people.dental.vapi(client, {"type": "status-update", "status": "ringing", "call": {"id": "call-x"}})
    deliver(platform)
    done = replay.replay_many(platform, DeliveryFilter("processed"), actor="test", limit=100)
    assert done["replayed"] == 13
    with platform.database.transaction(system=True) as session:
        due = session.execute(
            select(Delivery.org_id, Delivery.next_attempt_at).where(Delivery.status == "received").order_by(Delivery.id)
        ).all()
    salon = [at for org_id, at in due if org_id == people.salon.id]
    assert salon == sorted(salon)
    assert salon[-1] - salon[0] >= timedelta(seconds=1)  # ten a second, as one account's rate is
    (dental,) = [at for org_id, at in due if org_id == people.dental.id]
    assert dental <= datetime.now(UTC)  # waits for nobody else's


def test_a_recorded_text_is_sent_again_only_when_asked_and_once_an_ending(
    cli: CommandLine, people: People, platform: Platform, world: RemoteWorld
) -> None:
    plan(platform, people.salon, "one")
    deliver(platform)
    (sending,) = sends(cli)
    would = cli.data("deliveries", "replay", sending["id"], "--dry-run")
    (repeatable,) = would["deliveries"][0]["would_repeat_if_asked"]
    assert (repeatable["again"], would["deliveries"][0]["would_do"]) == ("send the text again", [])
    cli.data("deliveries", "replay", sending["id"])
    deliver(platform)
    assert len(world.messages()) == 1

    assert cli.data("deliveries", "replay", sending["id"], "--repeat-effects")["repeated"] == 1
    assert cli.refusal("deliveries", "replay", sending["id"], "--repeat-effects")["code"] == "unfinished"
    deliver(platform)
    assert [message["body"] for message in world.messages()] == ["About one.", "About one."]
    with platform.database.transaction(system=True) as session:
        notes = session.scalars(
            select(OperatorAction).where(OperatorAction.action == "replay").order_by(OperatorAction.id)
        ).all()
    assert [note.details for note in notes] == [{"was": "processed"}, {"was": "processed", "repeated": 1}]
    shown = cli.data("deliveries", "show", sending["id"])["replays"]
    assert [(note["actor"], note["details"]) for note in shown] == [(note.actor, note.details) for note in notes]
    assert all(note.actor for note in notes)


def test_a_text_is_not_repeated_to_who_has_said_stop(
    cli: CommandLine, people: People, platform: Platform, world: RemoteWorld, client: FlaskClient
) -> None:
    plan(platform, people.salon, "one")
    deliver(platform)
    people.salon.text(client, CUSTOMER, "STOP")
    (sending,) = sends(cli)
    cli.data("deliveries", "replay", sending["id"], "--repeat-effects")
    deliver(platform)
    assert len(world.messages()) == 1


def test_a_booking_missing_in_the_calendar_is_put_there_again_only_when_asked(
    cli: CommandLine,
    people: People,
    platform: Platform,
    world: RemoteWorld,
    client: FlaskClient,
    settle: Callable[..., None],
) -> None:
    world.fault("google", "error_500", operation="insert_event")
    people.salon.tool(client, "book_appointment", call_id="c1", start="2031-03-04T10:00", name="Alex", phone=CUSTOMER)
    world.clear_faults()
    with platform.database.transaction(system=True) as session:
        session.execute(text("UPDATE lanes SET due_at = now()"))
        session.execute(text("UPDATE webhook_delivery_log SET next_attempt_at = now() WHERE finished_at IS NULL"))
    settle(lambda: world.events(people.salon.calendar_id) and world.messages())
    (finish,) = [row for row in cli.data("deliveries", "list") if row["type"] == "appointment.finish"]
    (event,) = world.events(people.salon.calendar_id)
    world.delete_event(people.salon.calendar_id, event["id"])
    cli.data("deliveries", "replay", finish["id"])
    deliver(platform)
    assert [one["status"] for one in world.events(people.salon.calendar_id)] == ["cancelled"]
    texts = len(world.messages())
    assert cli.data("deliveries", "replay", finish["id"], "--repeat-effects")["repeated"] == 1
    # Its turn at Google's rate may come a moment later than the replay: so many changes were tried just now.
    settle(lambda: cli.data("deliveries", "show", finish["id"])["status"] == "processed")
    assert sorted(one["status"] for one in world.events(people.salon.calendar_id)) == ["cancelled", "confirmed"]
    assert len(world.messages()) == texts  # the customer is told nothing new


def test_what_cannot_be_replayed_is_told_and_holds_up_nothing(
    cli: CommandLine, people: People, client: FlaskClient, platform: Platform
) -> None:
    client.post(
        f"/webhooks/vapi/{people.salon.vapi_token}",
        data=b'{"message": [\xff]}',
        content_type="application/json",
        headers={"X-Vapi-Secret": people.salon.vapi_secret},
    )
    people.salon.vapi(client, {"type": "status-update", "status": "ringing", "call": {"id": "c"}})
    deliver(platform)
    with platform.database.transaction(system=True) as session:
        session.execute(update(Delivery).where(Delivery.status == "processed").values(status="dead"))
    would = cli.data("deliveries", "replay", "--status", "dead", "--dry-run")
    assert (would["would_replay"], would["not_replayable"][0]["code"]) == (1, "raw")
    assert "1 deliveries would be replayed" in cli.run("deliveries", "replay", "--status", "dead", "--dry-run").stdout
    done = cli.data("deliveries", "replay", "--status", "dead")
    assert (done["replayed"], [one["code"] for one in done["not_replayed"]]) == (1, ["raw"])
    assert cli.data("deliveries", "replay", "--status", "dead")["replayed"] == 0


def test_a_replay_of_everything_without_a_word_is_wrong_usage(cli: CommandLine, people: People) -> None:
    assert "--status" in cli.refusal("deliveries", "replay", exit_code=2)["message"]
    assert cli.refusal("deliveries", "replay", 1, "--status", "dead", exit_code=2)["code"] == "usage"
    assert "moment" in cli.refusal("deliveries", "replay", "--since", "tomorrow", exit_code=2)["message"]
    assert cli.data("deliveries", "replay", "--since", "2026-11-01", "--until", "24h")["replayed"] == 0


def test_two_who_repeat_the_same_ending_at_once_repeat_it_once(
    people: People, platform: Platform, world: RemoteWorld, cli: CommandLine
) -> None:
    plan(platform, people.salon, "one")
    deliver(platform)
    (sending,) = sends(cli)
    first, second = (replay._look(platform, sending["id"], None) for _ in range(2))
    outcomes: list[object] = []
    for found in (first, second):
        try:
            outcomes.append(replay._reopen(platform, found, actor="test", repeat_effects=True, delay_seconds=0))
        except InvalidInput as error:
            outcomes.append(error.code)
    assert outcomes == [1, "unfinished"]
    deliver(platform)
    assert len(world.messages()) == 2
    with platform.database.transaction(people.salon.id) as session:
        assert len(session.scalars(select(Message)).all()) == 2
