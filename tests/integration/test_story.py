"""Stories: by event, call or number, everything that is known in order of time, and nothing of anybody else."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import text

from app.services import replay, story
from tests.command_line import CommandLine

ADA, BEN = "+4915112345678", "+4915187654321"


@pytest.fixture
def booked(client, people, settle, platform):
    """One whole call of Ada's: booked, texted, reported."""
    salon = people.salon
    tomorrow = datetime.now(ZoneInfo("Europe/Berlin")) + timedelta(days=2)
    start = tomorrow.replace(hour=10, minute=0, second=0, microsecond=0).isoformat()
    call = {"id": "call-ada", "customer": {"number": ADA}}
    salon.vapi(client, {"type": "status-update", "status": "in-progress", "call": call})
    said = salon.tool(
        client, "book_appointment", call_id="call-ada", tool_call_id="tool-1", start=start, name="Ada", phone=ADA
    )
    assert "booked" in said.lower() or "noted" in said.lower()
    salon.vapi(
        client,
        {
            "type": "end-of-call-report",
            "call": call,
            "endedReason": "customer-ended-call",
            "artifact": {"transcript": "AI: Hello.\nUser: A cut, please."},
        },
    )

    def done() -> bool:
        with platform.database.transaction(system=True) as session:
            left = "SELECT count(*) FROM webhook_delivery_log WHERE status IN ('received', 'processing', 'retrying')"
            sent = "SELECT count(*) FROM messages WHERE provider_sid IS NOT NULL"
            soon = " AND next_attempt_at < now() + interval '1 minute'"
            return session.execute(text(left + soon)).scalar() == 0 and session.execute(text(sent)).scalar() == 1

    settle(done)
    return said


def whats(told: dict) -> list[str]:
    return [line["what"] for line in told["lines"]]


def test_a_call_is_told_from_its_first_event_to_the_text_and_with_what_was_said(app, platform, booked, people):
    told = CommandLine(app).data("story", "call-ada")
    assert told["kind"] == "call"
    seen = whats(told)
    for what in ("received", "attempt 1", "attempt 1 ended", "processed", "call began", "call ended", "asked", "said"):
        assert what in seen
    for what in ("transcript", "appointment made", "appointment booked", "text planned", "text sent", "planned"):
        assert what in seen
    times = [line["at"] for line in told["lines"] if line["at"]]
    assert times == sorted(times)
    assert {line["org_id"] for line in told["lines"]} == {str(people.salon.id)}
    (sent,) = [line["told"] for line in told["lines"] if line["what"] == "text sent"]
    assert "SID SM" in sent
    (called,) = [line for line in told["lines"] if line["what"] == "outbound call"]
    assert called["told"].endswith("to Twilio, send 1")
    (planned,) = [line for line in told["lines"] if line["what"] == "text planned"]
    assert planned["at"] <= called["at"]
    (spoken,) = [line["told"] for line in told["lines"] if line["what"] == "said"]
    assert booked in spoken


def test_a_number_has_its_calls_texts_and_appointments_but_no_transcript(app, platform, booked, people, client, settle):
    people.salon.text(client, ADA, "STOP")
    people.dental.text(client, ADA, "do you do teeth?")
    settle(lambda: len(story.tell(platform, ADA)["lines"]) > 15)
    told = story.tell(platform, ADA)
    assert told["kind"] == "number"
    assert {line["org_id"] for line in told["lines"]} == {str(people.salon.id), str(people.dental.id)}
    assert {"text in", "text sent", "call ended", "appointment made", "wants no texts"} <= set(whats(told))
    assert "transcript" not in whats(told)
    narrowed = story.tell(platform, ADA, org_id=people.dental.id)
    assert {line["org_id"] for line in narrowed["lines"]} == {str(people.dental.id)}
    assert CommandLine(app).refusal("story", BEN)["code"] == "not_found"


def test_an_event_has_its_effects_its_tries_and_what_operators_did(platform, client, people, settle):
    people.salon.text(client, BEN, "hello", sid="SM" + "a" * 32)

    def finished() -> list[int]:
        with platform.database.transaction(system=True) as session:
            statement = "SELECT id FROM webhook_delivery_log WHERE event_key LIKE 'in:%' AND finished_at IS NOT NULL"
            return list(session.execute(text(statement)).scalars())

    settle(finished)
    (delivery_id,) = finished()
    replay.replay(platform, delivery_id, actor="olga")
    settle(finished)
    told = story.tell(platform, f"in:SM{'a' * 32}")
    assert told["kind"] == "event"
    assert {"received", "attempt 1 ended", "skipped", "text in", "operator"} <= set(whats(told))
    assert whats(told).index("attempt 1 ended") < whats(told).index("skipped"), "which are of the same moment"
    assert any("olga: replay" in line["told"] for line in told["lines"])
    assert story.tell(platform, str(delivery_id))["lines"] == told["lines"]


def test_events_that_were_replayed_or_set_aside_still_belong_to_their_call(platform, booked):
    with platform.database.transaction(system=True) as session:
        (delivery_id,) = session.execute(
            text("SELECT id FROM webhook_delivery_log WHERE type = 'end-of-call-report'")
        ).scalars()
        session.execute(
            text("UPDATE webhook_delivery_log SET lane_key = lane_key || ':replay:1' WHERE id = :id"),
            {"id": delivery_id},
        )
    told = story.tell(platform, "call-ada")
    assert any(f"(delivery {delivery_id})" in line["told"] for line in told["lines"])


def test_a_call_id_with_wildcards_finds_no_other_call(app, booked):
    assert CommandLine(app).refusal("story", "call_ada")["code"] == "not_found"
    assert CommandLine(app).refusal("story", "call%")["code"] == "not_found"


def test_what_is_still_waiting_is_last_and_says_what_it_waits_for(platform, client, people):
    people.salon.text(client, BEN, "hello", sid="SM" + "b" * 32)
    with platform.database.transaction(system=True) as session:
        session.execute(text("UPDATE webhook_delivery_log SET status = 'retrying', waiting_on = 'twilio_sms'"))
    last = story.tell(platform, f"in:SM{'b' * 32}")["lines"][-1]
    assert (last["at"], last["what"]) == (None, "still retrying")
    assert "waits for twilio_sms" in last["told"]


def test_for_people_it_fits_a_terminal(app, booked):
    printed = CommandLine(app).run("story", "call-ada").stdout
    assert max(map(len, printed.splitlines())) <= 100
    assert "A cut, please." in printed
