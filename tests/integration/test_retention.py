"""What people say is kept as long as their organization says, and nowhere any longer."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from contextlib import closing
from uuid import uuid4

import psycopg2
import pytest
from sqlalchemy import text

from app.services.cleanup import clean_up, what_would_go
from tests.command_line import CommandLine
from tests.leaks import plant

CUSTOMER = "+4915155500071"
SECRET = "thesalmonisinthecellar"
plant(SECRET)

_COLUMNS = (
    "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
    " AND data_type IN ('text', 'jsonb', 'bytea') ORDER BY 1, 2"
)
_DATES = {
    "calls": "created_at",
    "messages": "created_at",
    "tool_answers": "started_at",
    "webhook_delivery_log": "finished_at",
}


@pytest.fixture
def owner(postgres, database_urls):
    """The database as nobody of the house sees it: all of every table."""
    with closing(psycopg2.connect(postgres.superuser_url(database_urls.name))) as connection:
        connection.autocommit = True
        yield connection.cursor()


@pytest.fixture
def where(owner) -> Callable[[], list[str]]:
    """Every column of every table in which the secret stands, whoever may see it."""

    def search() -> list[str]:
        owner.execute(_COLUMNS)
        found = []
        for table, column in owner.fetchall():
            said = f'"{column}"::text'
            owner.execute(
                f'SELECT count(*) FROM "{table}" WHERE {said} LIKE %s OR {said} LIKE %s',
                (f"%{SECRET}%", f"%{SECRET.encode().hex()}%"),
            )
            if owner.fetchone()[0]:
                found.append(f"{table}.{column}")
        return found

    return search


@pytest.fixture
def later(owner) -> Callable[[int], None]:
    """So many days pass."""

    def pass_days(days: int) -> None:
        for table, column in _DATES.items():
            owner.execute(f"UPDATE {table} SET {column} = {column} - interval '{days} days'")

    return pass_days


@pytest.fixture
def line(app) -> CommandLine:
    """The command line."""
    return CommandLine(app)


@pytest.fixture
def keep(line, people) -> Callable[[int], None]:
    """How many days the salon keeps words."""
    return lambda days: line.data("org", "set", people.salon.id, "--retention", days)


def a_call(people, client) -> None:
    """The secret is said in a call, and stands wherever Vapi repeats what was said."""
    salon, call_id = people.salon, str(uuid4())
    call = {"id": call_id, "type": "inboundPhoneCall", "customer": {"number": CUSTOMER}}
    messages = [{"role": "user", "message": SECRET, "time": 1.0}]
    salon.vapi(client, {"type": "status-update", "status": "in-progress", "call": call, "messages": messages})
    salon.vapi(client, {"type": "conversation-update", "call": call, "conversation": messages, "timestamp": 1})
    salon.tool(client, "send_text", call_id=call_id, phone=CUSTOMER, text=f"You said {SECRET}.")
    salon.tool(client, "book_appointment", call_id=call_id, start=SECRET, name="Ada", phone=CUSTOMER)
    report = {
        "type": "end-of-call-report",
        "call": call,
        "endedReason": "customer-ended-call",
        "durationSeconds": 31,
        "cost": 0.12,
        "transcript": f"User: {SECRET}",
        "recordingUrl": f"https://storage.vapi.ai/{SECRET}.wav",
        "analysis": {"summary": SECRET, "structuredData": {"said": SECRET}, "successEvaluation": "true"},
        "artifact": {"messages": messages, "transcript": SECRET, "addedTomorrow": {"deep": [SECRET]}},
    }
    assert salon.vapi(client, report).status_code == 200


def a_text(people, client, sid: str | None = None) -> None:
    params = {
        "MessageSid": sid or "SM" + secrets.token_hex(16),
        "AccountSid": people.salon.account_sid,
        "From": CUSTOMER,
        "To": people.salon.number,
        "Body": SECRET,
        "NumMedia": "1",
        "MediaUrl0": f"https://api.twilio.com/{SECRET}",
        "MediaContentType0": "image/png",
        "ButtonText": SECRET,
    }
    assert people.salon.twilio(client, params).status_code == 200


def texts_arrive(line, people, client) -> None:
    """Twilio's news that every text that went out has arrived."""
    for row in line.data("messages", "list", "--org", people.salon.id):
        if row["direction"] == "outbound":
            params = {"MessageSid": row["sid"], "AccountSid": people.salon.account_sid, "MessageStatus": "delivered"}
            params |= {"From": people.salon.number, "To": CUSTOMER}
            people.salon.twilio(client, params, path="/status", query=f"?m={row['id']}")


def handled(line, people) -> Callable[[], bool]:
    def is_handled() -> bool:
        rows = line.data("deliveries", "list", "--org", people.salon.id)
        waiting = [row for row in rows if row["status"] not in {"processed", "skipped", "dead"}]
        return [row["type"] for row in waiting] in ([], ["message.check"])

    return is_handled


def test_of_an_organization_that_stores_nothing_no_word_is_left_once_all_is_handled(
    client, people, keep, settle, where, line
):
    keep(0)
    a_call(people, client)
    a_text(people, client)
    settle(handled(line, people))
    texts_arrive(line, people, client)
    settle(handled(line, people))
    assert where() == []
    (call,) = line.data("calls", "list", "--org", people.salon.id)
    assert (call["status"], call["ended_reason"], call["duration_seconds"]) == ("ended", "customer-ended-call", 31.0)
    assert (call["cost"], call["customer_number"], call["success_evaluation"]) == (0.12, CUSTOMER, "true")


def test_words_stay_for_as_long_as_the_organization_says_and_then_go_wherever_they_stand(
    client, people, platform, keep, settle, where, later, line
):
    keep(5)
    a_call(people, client)
    a_text(people, client)
    settle(handled(line, people))
    texts_arrive(line, people, client)
    settle(handled(line, people))
    places = {
        *("calls.transcript", "calls.summary", "calls.recording_url", "calls.structured_data"),
        *("messages.body", "messages.media", "webhook_payloads.body"),
    }
    later(4)
    clean_up(platform)
    assert places <= set(where())
    later(2)
    told = what_would_go(platform)
    done = clean_up(platform)
    assert where() == []
    emptied = {name: done[name] for name in ("call_words", "text_words", "answer_words", "payload_words")}
    assert emptied == {name: told[name] for name in emptied}
    assert (emptied["call_words"], emptied["text_words"], emptied["answer_words"]) == (1, 2, 2)
    assert clean_up(platform)["payload_words"] == 0  # each once, not every night


def test_another_organization_keeps_its_own_words_for_its_own_time(client, people, platform, keep, settle, later, line):
    keep(5)
    people.dental.text(client, CUSTOMER, "Is Tuesday at ten still free for a check-up?")
    people.salon.text(client, CUSTOMER, "Is Tuesday at ten still free for a haircut?")
    rows = lambda: line.data("messages", "list")  # noqa: E731 - asked again and again
    settle(lambda: len(rows()) == 2)
    later(6)
    clean_up(platform)
    assert {row["org_id"]: row["body"] for row in rows()} == {
        str(people.dental.id): "Is Tuesday at ten still free for a check-up?",
        str(people.salon.id): "",
    }


def test_ninety_days_is_what_nobody_has_said_otherwise_about(client, people, platform, settle, later, line):
    assert line.data("org", "show", people.salon.id)["retention"] == 90
    people.salon.text(client, CUSTOMER, "Is Tuesday at ten still free for a haircut?")
    rows = lambda: line.data("messages", "list")  # noqa: E731 - asked again and again
    settle(lambda: len(rows()) == 1)
    later(89)
    clean_up(platform)
    assert rows()[0]["body"]
    later(2)
    clean_up(platform)
    assert rows()[0]["body"] == ""
    assert rows()[0]["words_removed_at"]


@pytest.mark.parametrize("days", [-1, 3_651])
def test_a_retention_that_makes_no_sense_is_refused(line, people, days):
    assert "retention: 0 to 3650" in line.refusal("org", "set", people.salon.id, "--retention", days)["message"]


def test_what_cannot_be_understood_is_not_stored_either(client, people, keep, where, line):
    keep(0)
    answer = client.post(
        f"/webhooks/vapi/{people.salon.vapi_token}",
        data=f"not json but {SECRET}",
        content_type="application/json",
        headers={"X-Vapi-Secret": people.salon.vapi_secret},
    )
    assert answer.status_code == 400
    (row,) = line.data("deliveries", "list", "--org", people.salon.id)
    assert (row["type"], row["status"]) == ("malformed", "dead")
    assert where() == []


def test_what_failed_keeps_its_words_for_a_day_so_that_it_can_be_replayed(
    client, people, platform, keep, settle, where, later, line
):
    keep(0)
    a_text(people, client)
    (row,) = line.data("deliveries", "list", "--org", people.salon.id)
    with platform.database.transaction(system=True) as session:
        session.execute(text("UPDATE webhook_delivery_log SET status = 'dead', finished_at = now()"))
        session.execute(text("DELETE FROM lanes"))
    clean_up(platform)
    assert where() == ["webhook_payloads.body"]
    later(2)
    clean_up(platform)
    assert where() == []
    assert line.refusal("deliveries", "replay", row["id"])["code"] == "words_gone"


def test_a_report_can_be_replayed_without_its_words_and_takes_nothing_away(
    client, people, platform, keep, settle, later, line
):
    a_call(people, client)
    settle(handled(line, people))
    report = next(row for row in line.data("deliveries", "list") if row["type"] == "end-of-call-report")
    keep(1)
    later(2)
    with platform.database.transaction(people.salon.id) as session:
        session.execute(text("UPDATE calls SET created_at = now()"))  # only the payload is old
    clean_up(platform)
    assert SECRET not in json.dumps(line.data("deliveries", "show", report["id"])["payload"])
    line.data("deliveries", "replay", report["id"])
    settle(handled(line, people))
    (call,) = line.data("calls", "list", "--org", people.salon.id)
    assert SECRET in call["transcript"]
    assert call["cost"] == 0.12


def test_the_same_question_asked_again_after_its_words_have_gone_books_nothing_twice(
    client, people, platform, keep, settle, later, line
):
    ask = {"call_id": str(uuid4()), "tool_call_id": "call_again", "phone": CUSTOMER, "text": "See you on Tuesday then."}
    assert people.salon.tool(client, "send_text", **ask) == "The text is on its way."
    settle(handled(line, people))
    keep(1)
    later(2)
    clean_up(platform)
    assert people.salon.tool(client, "send_text", **ask) == ""
    assert len(line.data("messages", "list")) == 1
