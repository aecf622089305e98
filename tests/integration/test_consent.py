"""A call begins with the organization's sentence of consent, and what was said is recorded with the call."""

from __future__ import annotations

from uuid import uuid4

import pytest

from tests.command_line import CommandLine

SENTENCE = "This call is recorded so that we can note your appointment."


@pytest.fixture
def line(app) -> CommandLine:
    """The command line."""
    return CommandLine(app)


def ring(people, client, call_id: str) -> dict:
    call = {"id": call_id, "type": "inboundPhoneCall", "customer": {"number": "+4915155500072"}}
    answer = people.salon.vapi(client, {"type": "assistant-request", "call": call, "timestamp": 1})
    assert answer.status_code == 200
    return answer.get_json()


def test_a_call_begins_with_the_sentence_and_it_is_recorded_with_the_call(line, client, people):
    line.data("org", "set", people.salon.id, "--consent", f"  {SENTENCE}\n")
    call_id = str(uuid4())
    overrides = ring(people, client, call_id)["assistantOverrides"]
    assert overrides["firstMessage"] == SENTENCE
    assert overrides["firstMessageMode"] == "assistant-speaks-first"
    assert overrides["variableValues"]["businessName"] == people.salon.name
    (call,) = line.data("calls", "list", "--org", people.salon.id)
    assert (call["call_id"], call["consent_sentence"]) == (call_id, SENTENCE)
    assert call["consent_at"]


def test_what_the_call_began_with_stays_with_it_when_the_sentence_changes(line, client, people, settle):
    line.data("org", "set", people.salon.id, "--consent", SENTENCE)
    call_id = str(uuid4())
    ring(people, client, call_id)
    line.data("org", "set", people.salon.id, "--consent", "Another sentence by now.")
    ring(people, client, call_id)  # asked again, it is the same call
    call = {"id": call_id}
    report = {"type": "end-of-call-report", "call": call, "endedReason": "customer-ended-call", "transcript": "..."}
    people.salon.vapi(client, report)
    told = lambda: line.data("calls", "list", "--org", people.salon.id)[0]  # noqa: E731 - asked again and again
    settle(lambda: told()["status"] == "ended")
    assert told()["consent_sentence"] == SENTENCE


def test_without_a_sentence_the_assistant_begins_as_it_always_does(line, client, people):
    line.data("org", "set", people.salon.id, "--consent", SENTENCE)
    line.data("org", "set", people.salon.id, "--consent", "")
    assert "firstMessage" not in ring(people, client, str(uuid4()))["assistantOverrides"]
    assert line.data("calls", "list", "--org", people.salon.id) == []


def test_a_sentence_too_long_to_be_listened_to_is_refused(line, people):
    assert line.refusal("org", "set", people.salon.id, "--consent", "word " * 101)["message"].startswith("consent:")
