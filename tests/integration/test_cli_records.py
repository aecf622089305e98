"""Looking up what came in, and delivering it once more."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select

from app.models import Attempt, Message, OperatorAction
from app.services.drain import Drain
from app.services.messages import plan_text
from app.services.platform import Platform
from sandbox.standins import RemoteWorld
from tests.command_line import CommandLine
from tests.people import Business, People

CUSTOMER = "+4915112345678"
LISTED = {
    "id",
    "org_id",
    "provider",
    "type",
    "event_id",
    "status",
    "attempts",
    "received_at",
    "next_attempt_at",
    "finished_at",
    "waiting_on",
    "error_code",
    "note",
    "set_aside",
}


@pytest.fixture
def client(app: Flask) -> Iterator[FlaskClient]:
    with app.test_client() as client:
        yield client


def deliver(platform: Platform) -> None:
    Drain(platform, threads=2).run(seconds=10)


def report_of_a_call(business: Business, client: FlaskClient, call_id: str) -> None:
    message = {
        "type": "end-of-call-report",
        "call": {"id": call_id},
        "endedReason": "customer-ended-call",
        "cost": 0.1234,
        "durationSeconds": 61.5,
        "startedAt": "2026-11-02T09:00:00.250Z",
        "endedAt": "2026-11-02T09:01:01.750Z",
    }
    assert business.vapi(client, message).status_code == 200


def test_a_delivery_is_listed_from_the_moment_it_came_in(
    cli: CommandLine, people: People, client: FlaskClient, platform: Platform
) -> None:
    report_of_a_call(people.salon, client, "call-1")
    (waiting,) = cli.data("deliveries", "list")
    assert set(waiting) == LISTED
    assert (waiting["status"], waiting["attempts"], waiting["finished_at"]) == ("received", 0, None)
    assert (waiting["provider"], waiting["event_id"]) == ("vapi", "end-of-call-report:call-1")
    deliver(platform)
    (done,) = cli.data("deliveries", "list", "--org", people.salon.id, "--status", "processed")
    assert (done["id"], done["attempts"]) == (waiting["id"], 1)
    assert done["finished_at"].endswith("Z")
    assert cli.data("deliveries", "list", "--status", "received") == []


def test_an_organizations_list_shows_nothing_of_another(cli: CommandLine, people: People, client: FlaskClient) -> None:
    report_of_a_call(people.salon, client, "call-1")
    report_of_a_call(people.dental, client, "call-2")
    assert len(cli.data("deliveries", "list")) == 2
    assert len(cli.data("deliveries", "list", "--limit", 1)) == 1
    (only,) = cli.data("deliveries", "list", "--org", people.dental.id)
    assert only["event_id"] == "end-of-call-report:call-2"
    assert cli.refusal("deliveries", "list", "--org", uuid4())["code"] == "not_found"


def test_a_status_that_does_not_exist_is_wrong_usage(cli: CommandLine) -> None:
    assert "set-aside" in cli.refusal("deliveries", "list", "--status", "set-aside", exit_code=2)["message"]


def test_one_delivery_is_shown_with_its_attempts_and_what_it_said(
    cli: CommandLine, people: People, client: FlaskClient, platform: Platform
) -> None:
    report_of_a_call(people.salon, client, "call-1")
    deliver(platform)
    (listed,) = cli.data("deliveries", "list")
    shown = cli.data("deliveries", "show", listed["id"])
    assert shown.items() >= listed.items()
    (attempt,) = shown["attempts_log"]
    assert (attempt["number"], attempt["outcome"], attempt["error"]) == (1, "processed", None)
    assert attempt["duration_ms"] >= 0
    assert attempt["process"]
    assert shown["payload"]["call"] == {"id": "call-1"}
    assert shown["raw"] is shown["answer"] is None
    text = cli.run("deliveries", "show", listed["id"]).stdout
    assert "end-of-call-report" in text
    assert "OUTCOME" in text
    assert cli.refusal("deliveries", "show", 999_999)["code"] == "not_found"


def test_what_was_answered_is_shown_too(cli: CommandLine, people: People, client: FlaskClient) -> None:
    people.salon.vapi(client, {"type": "assistant-request", "call": {"id": "call-1"}})
    (listed,) = cli.data("deliveries", "list")
    assert "assistantId" in cli.data("deliveries", "show", listed["id"])["answer"]
    assert cli.refusal("deliveries", "replay", listed["id"])["code"] == "answered"


def test_what_could_not_be_understood_is_shown_raw_and_not_replayed(
    cli: CommandLine, people: People, client: FlaskClient
) -> None:
    answer = client.post(
        f"/webhooks/vapi/{people.salon.vapi_token}",
        data=b'{"message": [\xff]}',
        content_type="application/json",
        headers={"X-Vapi-Secret": people.salon.vapi_secret},
    )
    assert answer.status_code == 400
    (dead,) = cli.data("deliveries", "list", "--status", "dead")
    shown = cli.data("deliveries", "show", dead["id"])
    assert base64.b64decode(shown["raw"]) == b'{"message": [\xff]}'
    assert cli.refusal("deliveries", "replay", dead["id"])["code"] == "raw"
    assert cli.data("deliveries", "show", dead["id"])["status"] == "dead"


def test_an_unfinished_delivery_is_not_replayed(cli: CommandLine, people: People, client: FlaskClient) -> None:
    report_of_a_call(people.salon, client, "call-1")
    (waiting,) = cli.data("deliveries", "list")
    refused = cli.refusal("deliveries", "replay", waiting["id"])
    assert refused["code"] == "unfinished"
    assert "received" in refused["message"]


def test_a_replay_delivers_again_says_what_exists_and_leaves_a_trail(
    cli: CommandLine, people: People, client: FlaskClient, platform: Platform
) -> None:
    report_of_a_call(people.salon, client, "call-1")
    deliver(platform)
    (done,) = cli.data("deliveries", "list")
    replayed = cli.data("deliveries", "replay", done["id"])
    (effect,) = replayed.pop("recorded_effects")
    assert replayed == {"id": done["id"], "status": "received", "replayed": True, "repeated": 0, "bell_rung": False}
    assert (effect["kind"], effect["status"]) == ("call", "ended")
    deliver(platform)
    (again,) = cli.data("deliveries", "list")
    assert (again["id"], again["status"], again["attempts"]) == (done["id"], "processed", 1)
    assert len(cli.data("calls", "list")) == 1
    with platform.database.transaction(system=True) as session:
        assert len(session.scalars(select(Attempt)).all()) == 2
        trail = session.scalars(select(OperatorAction).where(OperatorAction.action == "replay")).one()
    assert (trail.org_id, trail.subject, trail.details) == (people.salon.id, str(done["id"]), {"was": "processed"})


def test_a_replayed_text_that_was_sent_is_not_sent_again(cli: CommandLine, people: People, platform: Platform) -> None:
    plan(platform, people.salon)
    deliver(platform)
    (text,) = cli.data("messages", "list")
    assert (text["status"], text["from"], text["to"]) == ("sent", people.salon.number, CUSTOMER)
    (sending,) = [row for row in cli.data("deliveries", "list") if row["type"] == "message.send"]
    (effect,) = cli.data("deliveries", "replay", sending["id"])["recorded_effects"]
    assert (effect["kind"], effect["sid"]) == ("outbound text", text["sid"])
    deliver(platform)
    (after,) = cli.data("messages", "list")
    assert (after["sid"], after["sends"]) == (text["sid"], 1)


def test_a_text_that_was_refused_is_sent_by_a_replay_once_the_reason_is_gone(
    cli: CommandLine, people: People, platform: Platform, world: RemoteWorld
) -> None:
    world.twilio_recipient(CUSTOMER, refuse=21211)
    plan(platform, people.salon)
    deliver(platform)
    (dead,) = cli.data("deliveries", "list", "--status", "dead")
    assert dead["error_code"] == "provider_refused"
    assert cli.data("messages", "list")[0]["status"] == "failed"
    world.twilio_recipient(CUSTOMER)
    assert cli.data("deliveries", "replay", dead["id"])["recorded_effects"] == []
    deliver(platform)
    (text,) = cli.data("messages", "list")
    assert (text["status"], text["sends"], text["error_code"]) == ("sent", 2, None)


def test_a_text_whose_fate_is_unknown_is_not_sent_by_a_replay(
    cli: CommandLine, people: People, platform: Platform
) -> None:
    plan(platform, people.salon)
    deliver(platform)
    with platform.database.transaction(people.salon.id) as session:
        text = session.scalars(select(Message)).one()
        text.status, text.provider_sid = "unknown", None
    (done,) = [row for row in cli.data("deliveries", "list") if row["type"] == "message.send"]
    cli.data("deliveries", "replay", done["id"])
    assert cli.data("messages", "list")[0]["status"] == "unknown"


def test_calls_are_listed_with_their_cost_and_times(
    cli: CommandLine, people: People, client: FlaskClient, platform: Platform
) -> None:
    report_of_a_call(people.salon, client, "call-1")
    deliver(platform)
    (call,) = cli.data("calls", "list", "--org", people.salon.id)
    assert (call["call_id"], call["status"], call["cost"], call["duration_seconds"]) == (
        "call-1",
        "ended",
        0.1234,
        61.5,
    )
    assert call["started_at"] == "2026-11-02T09:00:00.250Z"
    assert cli.data("calls", "list", "--org", people.dental.id) == []


def test_appointments_are_listed_with_what_the_calendar_does_not_know_yet(
    cli: CommandLine, people: People, client: FlaskClient
) -> None:
    book(people.salon, client, "Alex Example")
    (booked,) = cli.data("appointments", "list", "--org", people.salon.id)
    assert (booked["name"], booked["phone"], booked["status"]) == ("Alex Example", CUSTOMER, "booked")
    assert (booked["starts_at"], booked["calendar_action"]) == ("2031-03-04T09:00:00.000Z", None)
    assert booked["google_event_id"]


def test_tables_fit_a_hundred_columns_and_keep_ids_whole(
    cli: CommandLine, people: People, client: FlaskClient, platform: Platform
) -> None:
    report_of_a_call(people.salon, client, "call-1")
    people.salon.text(client, CUSTOMER, "a long text " * 40)
    book(people.salon, client, "A " * 90 + "Z")
    deliver(platform)
    for command in ("deliveries", "calls", "messages", "appointments", "org", "integration"):
        result = cli.run(command, "list")
        assert result.exit_code == 0
        lines = result.stdout.splitlines()
        assert len(lines) >= 2
        assert max(map(len, lines)) <= 100, command
    for line in cli.run("appointments", "list").stdout.splitlines()[1:]:
        assert UUID(line[:36])


def book(business: Business, client: FlaskClient, name: str) -> None:
    arguments = {"start": "2031-03-04T10:00", "name": name, "phone": CUSTOMER}
    call = {"id": "call_1", "type": "function", "function": {"name": "book_appointment", "arguments": arguments}}
    answer = business.vapi(client, {"type": "tool-calls", "call": {"id": "call-9"}, "toolCallList": [call]})
    assert "Booked" in answer.get_json()["results"][0]["result"]


def plan(platform: Platform, business: Business) -> None:
    with platform.database.transaction(business.id) as session:
        plan_text(
            session,
            business.id,
            to=CUSTOMER,
            body="See you on Friday.",
            channel="sms",
            idempotency_key="test",
            purpose="test",
        )
