"""Texts that programs ask for: planned once for a key, and sent like every other text."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest
from sqlalchemy import text

from app.services import organizations
from tests.integration.api import Program

TO = "+4915112345678"


@pytest.fixture
def salon(app, people) -> Program:
    return Program(app, people.salon.id)


def stored(platform) -> int:
    with platform.database.transaction(system=True) as session:
        return session.execute(text("SELECT count(*) FROM messages")).scalar_one()


def test_a_text_is_planned_then_sent_and_can_be_followed(salon, world, settle):
    planned = salon.send("order-1", to=TO, body="Your table is ready.")
    assert planned.status_code == 202
    assert planned.get_json()["status"] == "planned"
    where = planned.headers["Location"].removeprefix("/api/v1")
    assert salon.get(where).get_json()["to"] == TO
    settle(lambda: salon.get(where).get_json()["status"] == "sent")
    assert [(sent["to"], sent["body"]) for sent in world.messages()] == [(TO, "Your table is ready.")]


def test_the_same_key_is_the_same_text(salon, world, settle):
    first = salon.send("k", to=TO, body="once")
    settle(lambda: salon.get(f"/messages/{first.get_json()['id']}").get_json()["status"] == "sent")
    again = salon.send("k", to=" +49 151 12345678 ", body="once")
    assert again.status_code == 200
    assert (again.get_json()["id"], again.get_json()["status"]) == (first.get_json()["id"], "sent")
    settle(lambda: True)
    assert len(world.messages()) == 1


def test_the_same_key_at_the_same_time_is_one_text(app, salon, platform):
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: Program.send(salon, "k", to=TO, body="once"), range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [202]
    assert len({answer.get_json()["id"] for answer in answers}) == 1
    assert stored(platform) == 1


@pytest.mark.parametrize("other", [{"body": "twice"}, {"to": "+4915112345679"}, {"channel": "whatsapp"}])
def test_the_same_key_for_another_text_is_refused(salon, platform, other):
    text_out = {"to": TO, "body": "once"}
    salon.send("k", **text_out)
    answer = salon.send("k", **{**text_out, **other})
    assert (answer.status_code, answer.get_json()["code"]) == (422, "key_reused")
    assert stored(platform) == 1


def test_a_key_is_its_organizations_own(app, salon, people):
    other = Program(app, people.dental.id)
    assert salon.send("k", to=TO, body="from the salon").status_code == 202
    assert other.send("k", to=TO, body="from the dentist").status_code == 202


def test_who_has_said_stop_gets_none(client, salon, people, world, settle):
    people.salon.text(client, TO, "STOP")
    answer = salon.send("k", to=TO, body="hello")
    assert answer.status_code == 202
    assert (answer.get_json()["status"], answer.get_json()["error_code"]) == ("refused", "opted_out")
    settle(lambda: True)
    assert world.messages() == []


@pytest.mark.parametrize(
    ("body", "headers", "place", "field"),
    [
        ({"to": TO, "body": "x"}, {}, "header", "Idempotency-Key"),
        ({"to": TO, "body": "x"}, {"Idempotency_Key": "with space"}, "header", "Idempotency-Key"),
        ({"to": TO, "body": "x"}, {"Idempotency_Key": "x" * 201}, "header", "Idempotency-Key"),
        ({"body": "x"}, {"Idempotency_Key": "k"}, "body", "to"),
        ({"to": TO, "body": ""}, {"Idempotency_Key": "k"}, "body", "body"),
        ({"to": TO, "body": "x" * 1601}, {"Idempotency_Key": "k"}, "body", "body"),
        ({"to": TO, "body": "a\x00b"}, {"Idempotency_Key": "k"}, "body", "body"),
        ({"to": TO, "body": "x", "channel": "fax"}, {"Idempotency_Key": "k"}, "body", "channel"),
        ({"to": TO, "body": "x", "from": TO}, {"Idempotency_Key": "k"}, "body", "from"),
        ([], {"Idempotency_Key": "k"}, "body", ""),
    ],
)
def test_a_wrong_text_is_told_by_its_field(salon, platform, body, headers, place, field):
    answer = salon.post("/messages", body, **headers)
    assert answer.status_code == 422
    assert [(fault["in"], fault["field"]) for fault in answer.get_json()["errors"]] == [(place, field)]
    assert stored(platform) == 0


@pytest.mark.parametrize("number", ["015112345678", "+49", "+49 not a number", "whatsapp:+4915112345678"])
def test_a_number_that_is_none_is_refused_without_being_repeated(salon, number):
    answer = salon.send("k", to=number, body="x")
    assert answer.status_code == 422
    assert number not in answer.get_data(as_text=True)


def test_a_body_that_is_no_json_is_400_another_type_415_and_too_much_413(app, salon):
    client = app.test_client()

    def post(body: bytes, content_type: str = "application/json") -> int:
        headers = {**salon.headers, "Idempotency-Key": "k"}
        return client.post("/api/v1/messages", data=body, content_type=content_type, headers=headers).status_code

    assert post(b"{") == 400
    assert post(b'{"to": "\\ud800"}') == 400
    assert post(b"[" * 5000) == 400
    assert post(b"to=x", "application/x-www-form-urlencoded") == 415
    assert post(b" " * 70_000) == 413


def test_the_same_key_is_the_same_text_also_after_twilio_was_taken_away(salon, platform):
    first = salon.send("k", to=TO, body="once")
    with platform.database.transaction(system=True) as session:
        session.execute(text("UPDATE integrations SET disabled_at = now() WHERE provider = 'twilio'"))
    platform.directory.forget()
    again = salon.send("k", to=TO, body="once")
    assert (again.status_code, again.get_json()["id"]) == (200, first.get_json()["id"])
    assert salon.send("another", to=TO, body="x").get_json()["code"] == "not_connected"
    assert stored(platform) == 1


def test_without_twilio_nothing_is_planned(app, platform):
    made = organizations.create(platform, name="Alone", timezone="UTC", actor="test")
    answer = Program(app, UUID(made["id"])).send("k", to=TO, body="x")
    assert (answer.status_code, answer.get_json()["code"]) == (409, "not_connected")
    assert stored(platform) == 0
