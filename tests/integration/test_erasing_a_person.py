"""One person erased from everything, shown by a search of every column of every table."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import psycopg2
import pytest
from flask.testing import FlaskClient
from sqlalchemy import select, text

from app.errors import InvalidInput
from app.models import Call, Message, OperatorAction, ledger
from app.services import credential_rotation, erasure
from app.services.drain import Drain
from app.services.messages import plan_text
from app.services.platform import Platform
from app.services.spellings import spellings_of
from sandbox.standins import RemoteWorld
from tests.command_line import CommandLine
from tests.conftest import Urls
from tests.people import Business, People

PERSON = "+4915112345678"
OTHER = "+4915187654321"
SPELLINGS = [
    "+4915112345678",
    "4915112345678",
    "004915112345678",
    "015112345678",
    "+49 151 12345678",
    "+49 (0) 151 / 123-456-78",
    "0151-1234 5678",
    "(0151) 12345678",
    "whatsapp:+4915112345678",
    "tel:+49-151-12345678",
    "+49\u00a0151\u00a01234\u00a05678",
]
DIGITS = "15112345678"


def places_that_say(urls: Urls, digits: str) -> set[str]:
    """Every column of every table, whatever its type, read as its owner past row-level security, digits alone."""
    found = set()
    connection = psycopg2.connect(urls.owner)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        for (table,) in cursor.fetchall():
            cursor.execute(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
            cursor.execute(f"SELECT * FROM {table}")
            names = [column.name for column in cursor.description]
            for row in cursor.fetchall():
                for name, value in zip(names, row, strict=True):
                    said = bytes(value).decode("latin-1") if isinstance(value, memoryview) else str(value)
                    if digits in re.sub(r"\D", "", re.sub(r"%2B|%20|%28|%29", "", said)) and _is_words(value):
                        found.add(f"{table}.{name}")
            cursor.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
    connection.close()
    return found


def _is_words(value: Any) -> bool:
    return isinstance(value, str | dict | list | memoryview)


def deliver(platform: Platform) -> None:
    Drain(platform, threads=2).run(seconds=10)


def live_through(business: Business, client: FlaskClient, platform: Platform, number: str) -> None:
    """A call with a booking, its report, texts both ways, and one that is still to be sent."""
    call = {"id": f"call-{number[-4:]}", "type": "inboundPhoneCall", "customer": {"number": number}}
    arguments = {"start": f"2031-03-04T1{number[-1]}:00", "name": "Alex Example", "phone": number}
    asked = {"id": "t1", "type": "function", "function": {"name": "book_appointment", "arguments": arguments}}
    business.vapi(client, {"type": "status-update", "status": "in-progress", "call": call})
    business.vapi(client, {"type": "tool-calls", "call": call, "toolCallList": [asked]})
    report = {"type": "end-of-call-report", "call": call, "transcript": f"My number is {number}, thanks."}
    business.vapi(client, {**report, "summary": "Alex booked.", "analysis": {"structuredData": {"phone": number}}})
    business.text(client, number, f"call me on {number}")
    deliver(platform)


def plan(platform: Platform, business: Business, to: str, body: str, key: str) -> None:
    with platform.database.transaction(business.id) as session:
        plan_text(session, business.id, to=to, body=body, channel="sms", idempotency_key=key, purpose="test")


def leave_traces(cli: CommandLine, salon: Business, client: FlaskClient, platform: Platform) -> None:
    """The person's number everywhere it can come to: handled, waiting, dead, quarantined, in another's words."""
    live_through(salon, client, platform, PERSON)
    live_through(salon, client, platform, OTHER)
    salon.text(client, PERSON, "STOP")
    for number, spelling in enumerate(SPELLINGS):  # in what another person writes, and in what waits for them
        salon.text(client, OTHER, f"my friend's number is {spelling}.")
        plan(platform, salon, OTHER, f"We call {spelling} back.", f"{spelling}-{number}")
    salon.vapi(client, {"type": "user-interrupted", "call": {"id": "call-z"}, "number": int(PERSON[1:]), PERSON: 1})
    client.post(  # dead, raw
        f"/webhooks/vapi/{salon.vapi_token}",
        data=b'{"message": ["' + PERSON.encode() + b'", \xff]}',
        content_type="application/json",
        headers={"X-Vapi-Secret": salon.vapi_secret},
    )
    (twilio,) = [
        row for row in cli.data("integration", "list") if row["provider"] == "twilio" and row["org_id"] == str(salon.id)
    ]
    cli.data("integration", "set-verification", twilio["id"], "quarantine")
    refused = client.post(
        f"/webhooks/twilio/{salon.twilio_token}",
        data=urlencode({"From": PERSON, "Body": "hello"}),
        content_type="application/x-www-form-urlencoded",
        headers={"X-Twilio-Signature": "wrong"},
    )
    assert refused.status_code == 403
    salon.text(client, PERSON, "waiting, not handled yet")


def test_after_erasing_a_person_no_column_of_any_table_says_the_number_in_any_spelling(
    cli: CommandLine,
    people: People,
    client: FlaskClient,
    platform: Platform,
    world: RemoteWorld,
    database_urls: Urls,
) -> None:
    salon = people.salon
    leave_traces(cli, salon, client, platform)
    assert len(places_that_say(database_urls, DIGITS)) > 8

    would = cli.data("person", "erase", PERSON, "--dry-run")
    assert (would["calls"], would["appointments"], would["opt_outs"], would["quarantined"]) == (1, 1, 1, 1)
    assert len(places_that_say(database_urls, DIGITS)) > 8
    done = cli.data("person", "erase", PERSON)
    assert (done["calls"], done["appointments"], done["opt_outs"], done["quarantined"]) == (1, 1, 1, 1)
    assert (done["left"], done["calendar_events"]) == ({}, 1)
    assert done["ended"] >= 1
    assert done["mentions"]["messages"] >= len(SPELLINGS)
    assert places_that_say(database_urls, DIGITS) == set()
    assert PERSON not in str(done)

    with platform.database.transaction(system=True) as session:
        assert ledger.balance(session).difference == 0
        note = session.scalars(select(OperatorAction).where(OperatorAction.action == "person.erase")).one()
        assert note.details["messages"] == done["messages"]
    deliver(platform)
    event, other = sorted(world.events(salon.calendar_id), key=lambda one: one["summary"] != "[erased]")
    assert (event["summary"], event["status"], other["summary"]) == ("[erased]", "confirmed", "Alex Example")
    # The other person's is as it was, but for the number.
    assert PERSON not in str(world.messages()[-1])
    with platform.database.transaction(salon.id) as session:
        texts = session.scalars(select(Message.body).where(Message.remote_address == OTHER)).all()
        assert f"call me on {OTHER}" in texts
        assert "my friend's number is [erased]." in texts
        assert session.scalars(select(Call.customer_number)).all().count(OTHER) == 1
    again = cli.data("person", "erase", PERSON)
    assert (again["calls"], again["messages"], again["mentions"], again["left"]) == (0, 0, {}, {})


def test_a_stop_is_honoured_after_its_number_is_erased_and_after_keys_were_rotated(
    people: People, client: FlaskClient, platform: Platform, world: RemoteWorld, database_urls: Urls
) -> None:
    people.salon.text(client, PERSON, "STOP")
    deliver(platform)
    erasure.erase(platform, PERSON, actor="test")
    assert places_that_say(database_urls, DIGITS) == set()
    credential_rotation.rotate(platform, actor="test")
    plan(platform, people.salon, PERSON, "An offer.", "one")
    plan(platform, people.dental, PERSON, "Another's text.", "two")
    deliver(platform)
    assert [message["body"] for message in world.messages()] == ["Another's text."]
    people.salon.text(client, PERSON, "START")
    plan(platform, people.salon, PERSON, "Welcome back.", "three")
    deliver(platform)
    assert world.messages()[-1]["body"] == "Welcome back."


def test_what_comes_late_does_not_fill_an_erased_call_again(
    people: People, client: FlaskClient, platform: Platform
) -> None:
    live_through(people.salon, client, platform, PERSON)
    erasure.erase(platform, PERSON, actor="test")
    call = {"id": f"call-{PERSON[-4:]}", "customer": {"number": PERSON}}
    people.salon.vapi(client, {"type": "status-update", "status": "ended", "call": call})
    deliver(platform)
    with platform.database.transaction(people.salon.id) as session:
        row = session.scalars(select(Call)).one()
    assert (row.customer_number, row.transcript, row.summary) == (None, None, None)


def test_one_organizations_knowledge_is_erased_and_anothers_kept(
    cli: CommandLine, people: People, client: FlaskClient, platform: Platform
) -> None:
    for business in (people.salon, people.dental):
        live_through(business, client, platform, PERSON)
    done = cli.data("person", "erase", PERSON, "--org", people.salon.id)
    assert (done["calls"], done["left"]) == (1, {})
    with platform.database.transaction(system=True) as session:
        kept = session.execute(select(Call.org_id).where(Call.customer_number == PERSON)).scalars().all()
    assert kept == [people.dental.id]
    assert cli.data("person", "erase", PERSON, "--dry-run")["calls"] == 1


def test_what_has_been_erased_cannot_be_replayed(
    cli: CommandLine, people: People, client: FlaskClient, platform: Platform
) -> None:
    people.salon.text(client, PERSON, "hello")
    deliver(platform)
    (delivery,) = cli.data("deliveries", "list")
    cli.data("person", "erase", PERSON)
    assert cli.refusal("deliveries", "replay", delivery["id"])["code"] == "erased"


def test_an_own_number_and_what_is_no_number_are_refused_without_repeating_them(
    cli: CommandLine, people: People
) -> None:
    for said in (people.salon.number, "77", "nobody", "0151 12345678"):
        refused = cli.refusal("person", "erase", said)
        assert said not in refused["message"]


def test_a_worker_that_is_at_it_is_waited_for(
    people: People, client: FlaskClient, platform: Platform, settle: Callable[..., None], database_urls: Urls
) -> None:
    people.salon.text(client, PERSON, "hello")
    with platform.database.transaction(system=True) as session:  # as a worker that has just begun would have it
        session.execute(text("UPDATE lanes SET token = nextval('lane_tokens'), due_at = now() + interval '0.5 s'"))
        session.execute(text("UPDATE webhook_delivery_log SET status = 'processing', running_since = now()"))
    done = erasure.erase(platform, PERSON, actor="test")
    assert (done["ended"], done["left"]) == (1, {})
    assert places_that_say(database_urls, DIGITS) == set()


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_spelling_is_found_and_taken_out(spelling: str) -> None:
    who = spellings_of(PERSON)
    assert who.without(f"a {spelling} b", "X") in ("a X b", "a whatsapp:X b", "a tel:X b", "a (X b")


def test_other_numbers_are_left_alone() -> None:
    who = spellings_of("+12025550143")
    assert who.without("(202) 555-0143, 1-202-555-0143 or 2025550143", "X") == "(X, X or X"
    for other in (
        "+12025550144",
        "912025550143",
        "20255501430",
        "+44 2025550143",
        "+4915112345678",
        True,
        2025550144,
        None,
    ):
        assert who.without(other, "X") == other
    with pytest.raises(InvalidInput):
        spellings_of("555")
