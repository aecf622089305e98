"""A number with a fixed assistant asks nobody who takes its calls: there the assistant says the sentence by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from flask.testing import FlaskClient

from app.config import Settings
from sandbox.standins import RemoteWorld
from tests.command_line import CommandLine
from tests.integration.test_connecting import refused
from tests.people import Business

KEY = "a-private-key"
SENTENCE = "This call is recorded."
GREETING = "Corner Bakery, how can I help you?"
Thing = dict[str, Any]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"vapi_private_key": KEY})


@pytest.fixture
def fixed(cli: CommandLine, bakery: Business, world: RemoteWorld) -> Callable[..., str]:
    """Vapi as it should be but for what the assistant says first, its number fixed to it; returns the integration."""

    def make(*, answers: bool = True, **says: Any) -> str:
        world.vapi_key(KEY)
        assistant_id = world.assistant(KEY, **says)["id"]
        world.phone_number(KEY, bakery.number, **({"assistantId": assistant_id} if answers else {}))
        cli.data("org", "set", bakery.id, "--assistant", assistant_id)
        (row,) = [one for one in cli.data("integration", "list", "--org", bakery.id) if one["provider"] == "vapi"]
        cli.data("integration", "apply", row["id"], "--yes")
        assert cli.data("integration", "check", row["id"]) == []
        return str(row["id"])

    return make


@pytest.fixture
def says(cli: CommandLine, bakery: Business) -> Callable[[str], None]:
    """Set the organization's sentence."""
    return lambda sentence: cli.data("org", "set", bakery.id, "--consent", sentence)


def assistant(world: RemoteWorld) -> Thing:
    (found,) = world.vapi_settings()["assistants"]
    return found


def test_the_sentence_is_missed_shown_and_put_before_what_the_assistant_says_by_itself(cli, world, fixed, says):
    row = fixed(firstMessage=GREETING, metadata={"theirs": "stays"})
    says(SENTENCE)
    (missed,) = refused(cli, row)
    assert (missed["what"], missed["mends"]) == ("the first message", True)
    assert (missed["has"], missed["should"]) == (GREETING, f"{SENTENCE} {GREETING}")
    assert missed["fix"] == f"integration apply {row} --yes"
    assert cli.data("integration", "apply", row)["applied"] is False
    assert assistant(world)["firstMessage"] == GREETING
    cli.data("integration", "apply", row, "--yes")
    assert assistant(world)["firstMessage"] == f"{SENTENCE} {GREETING}"
    assert assistant(world)["metadata"]["theirs"] == "stays"
    assert cli.data("integration", "check", row) == []


def test_applied_twice_nothing_is_changed_and_taken_away_again_only_the_sentence_goes(cli, world, fixed, says):
    row = fixed(firstMessage=GREETING)
    says("This call is recorded")  # without an end, which it gets
    cli.data("integration", "apply", row, "--yes")
    there, asked = world.vapi_settings(), len(world.requests("vapi", "update_assistant"))
    assert cli.data("integration", "apply", row, "--yes")["differences"] == []
    assert world.vapi_settings() == there
    assert len(world.requests("vapi", "update_assistant")) == asked
    says("Wir nehmen dieses Gespräch auf.")
    cli.data("integration", "apply", row, "--yes")
    assert assistant(world)["firstMessage"] == f"Wir nehmen dieses Gespräch auf. {GREETING}"
    says("")
    (left,) = refused(cli, row)
    assert left["should"] == GREETING
    cli.data("integration", "apply", row, "--yes")
    assert assistant(world)["firstMessage"] == GREETING
    assert cli.data("integration", "check", row) == []


def test_a_sentence_that_somebody_wrote_there_by_hand_is_neither_doubled_nor_taken_off(cli, world, fixed, says):
    row = fixed(firstMessage=f"this call is  RECORDED. {GREETING}")
    says(SENTENCE)
    assert cli.data("integration", "check", row) == []
    says("")
    assert cli.data("integration", "check", row) == []
    says("This call is rec")  # the beginning of a word is no sentence
    assert len(refused(cli, row)) == 1


def test_an_assistant_that_says_nothing_first_says_the_sentence_and_at_once(cli, world, fixed, says):
    row = fixed(firstMessageMode="assistant-waits-for-user")
    says(SENTENCE)
    (missed,) = refused(cli, row)
    assert "after the caller has spoken" in missed["has"]
    cli.data("integration", "apply", row, "--yes")
    assert (assistant(world)["firstMessage"], assistant(world)["firstMessageMode"]) == (
        SENTENCE,
        "assistant-speaks-first",
    )
    says("")
    (left,) = refused(cli, row)
    assert left["should"] == "(nothing)"
    cli.data("integration", "apply", row, "--yes")
    assert assistant(world)["firstMessage"] == ""


def test_before_a_recording_no_sentence_can_be_put_and_a_person_is_told_what_can_be_done(cli, world, fixed, says):
    row = fixed(firstMessage="https://example.com/hello.mp3")
    says(SENTENCE)
    (missed,) = refused(cli, row)
    assert missed["mends"] is False
    assert "in words" in missed["fix"]
    cli.data("integration", "apply", row, "--yes")
    assert assistant(world)["firstMessage"] == "https://example.com/hello.mp3"


def test_where_vapi_asks_who_takes_the_call_the_assistant_keeps_its_own_words(cli, fixed, says):
    row = fixed(answers=False, firstMessage=GREETING)
    says(SENTENCE)
    assert cli.data("integration", "check", row) == []


def test_a_number_that_another_assistant_takes_than_the_organizations_is_told(cli, world, bakery, fixed):
    row = fixed()
    other = world.assistant(KEY, "Somebody else's")["id"]
    (number,) = world.vapi_settings()["phone_numbers"]
    world.phone_number(KEY, bakery.number, number["id"], assistantId=other)
    (told,) = refused(cli, row)
    assert (told["what"], told["has"], told["mends"]) == ("the number's assistant", other, False)
    assert told["fix"].startswith(f"org set {bakery.id} --assistant {other}")


def report(began_with: str) -> Thing:
    said = [
        {"role": "system", "message": "Be kind."},
        {"role": "bot", "message": began_with, "time": 1_790_000_000_000},
    ]
    message = {"type": "end-of-call-report", "call": {"id": str(uuid4())}, "endedReason": "customer-ended-call"}
    return {**message, "artifact": {"messages": said}}


def test_what_such_a_call_began_with_is_recorded_with_it_when_its_report_says_so(
    cli: CommandLine, client: FlaskClient, bakery: Business, says: Callable[[str], None], settle: Any
) -> None:
    says(SENTENCE)
    with_it, without = report(f"{SENTENCE} {GREETING}"), report(GREETING)
    for message in (with_it, without):
        assert bakery.vapi(client, message).status_code == 200
    found: dict[str, Thing] = {}

    def both_ended() -> bool:
        found.update({one["call_id"]: one for one in cli.data("calls", "list", "--org", bakery.id)})
        return len(found) == 2

    settle(both_ended)
    told = found[with_it["call"]["id"]]
    assert (told["consent_sentence"], told["consent_at"]) == (SENTENCE, "2026-09-21T14:13:20.000Z")
    assert found[without["call"]["id"]]["consent_sentence"] is None
