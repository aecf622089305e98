"""What is another organization's is not there: no route of the API tells the difference."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from werkzeug.routing import Rule
from werkzeug.test import TestResponse

from app.http.api.operations import OPERATIONS
from app.models import Appointment, Call, Message
from app.services.drain import Drain
from tests.integration.api import Program

NOT_COMPARED = {"X-Request-Id", "RateLimit-Remaining", "RateLimit-Reset", "Content-Length"}
BODIES: dict[str, dict[str, Any]] = {"send_message": {"to": "+4915112345678", "body": "hello"}}
BEGAN = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def dentals(app, client, platform, people) -> dict[str, Any]:
    """One of everything of Harbour Dental's, by the name that paths give its id."""
    people.dental.vapi(client, {"type": "status-update", "status": "ended", "call": {"id": "c1"}})
    Drain(platform, threads=1).run()
    org_id = people.dental.id
    with platform.database.transaction(org_id) as session:
        call = Call(org_id=org_id, vapi_call_id="c2", status="ended")
        message = Message(
            org_id=org_id, direction="inbound", channel="sms", remote_address="+491511", body="x", status="received"
        )
        appointment = Appointment(
            org_id=org_id,
            calendar_id="c",
            starts_at=BEGAN,
            ends_at=BEGAN + timedelta(minutes=30),
            status="booked",
            name="Ada",
        )
        session.add_all([call, message, appointment])
        session.flush()
        ids = {"call_id": call.id, "message_id": message.id, "appointment_id": appointment.id}
    own = Program(app, org_id).get("/deliveries").get_json()["data"]
    return {**ids, "delivery_id": own[0]["id"]}


NOWHERE: dict[str, Callable[[], Any]] = {
    "delivery_id": lambda: 10**12,
    "call_id": uuid4,
    "message_id": uuid4,
    "appointment_id": uuid4,
}


def routes(app) -> list[Rule]:
    return [rule for rule in app.url_map.iter_rules() if rule.endpoint in OPERATIONS]


def ask(program: Program, rule: Rule, ids: dict[str, Any]) -> TestResponse:
    operation = OPERATIONS[rule.endpoint]
    _, path = rule.build(ids)
    path = path.removeprefix("/api/v1")
    if operation.method == "GET":
        return program.get(path)
    body = BODIES.get(operation.name)
    return program.post(path, body, Idempotency_Key="k") if body else program.post(path)


def seen(answer: TestResponse, ids: dict[str, Any]) -> tuple[Any, ...]:
    """All that a program can tell of an answer, without the id it has asked for itself."""
    body = answer.get_data(as_text=True)
    for value in ids.values():
        body = body.replace(str(value), "ID")
    return answer.status_code, body, sorted(pair for pair in answer.headers if pair[0] not in NOT_COMPARED)


def test_each_route_answers_for_anothers_id_as_for_one_that_does_not_exist(app, people, dentals):
    salon = Program(app, people.salon.id)
    tried = []
    for rule in routes(app):
        if not rule.arguments:
            continue
        not_yours = {name: dentals[name] for name in rule.arguments}
        not_there = {name: NOWHERE[name]() for name in rule.arguments}
        first, second = ask(salon, rule, not_yours), ask(salon, rule, not_there)
        assert first.status_code == 404, rule.rule
        assert seen(first, not_yours) == seen(second, not_there), rule.rule
        tried.append(OPERATIONS[rule.endpoint].name)
    assert set(tried) >= {"show_call", "show_message", "show_appointment", "show_delivery", "replay_delivery"}


def test_each_of_those_routes_does_find_the_owners_own(app, people, dentals):
    dental = Program(app, people.dental.id)
    for rule in routes(app):
        if rule.arguments:
            answer = ask(dental, rule, {name: dentals[name] for name in rule.arguments})
            assert answer.status_code in (200, 202), rule.rule


def test_no_route_without_an_id_tells_anything_of_another(app, people, dentals):
    salon, dental = Program(app, people.salon.id), Program(app, people.dental.id)
    secret = [str(value) for value in dentals.values() if isinstance(value, UUID)]
    for rule in routes(app):
        if rule.arguments:
            continue
        answer = ask(salon, rule, {})
        assert answer.status_code in (200, 202), rule.rule
        body = answer.get_data(as_text=True)
        assert not [value for value in secret if value in body], rule.rule
        if rule.endpoint.startswith("api.list_") and "message" not in rule.endpoint:
            assert answer.get_json()["data"] == [], rule.rule
            assert ask(dental, rule, {}).get_json()["data"], rule.rule


def test_a_cursor_of_anothers_list_opens_nothing(app, people, dentals, platform):
    with platform.database.transaction(people.dental.id) as session:
        session.add_all([Call(org_id=people.dental.id, vapi_call_id=f"d{n}", status="ended") for n in range(3)])
    theirs = Program(app, people.dental.id).get("/calls", limit=1).get_json()["next_cursor"]
    answer = Program(app, people.salon.id).get("/calls", cursor=theirs)
    assert answer.get_json() == {"data": [], "next_cursor": None}


def test_a_filter_that_names_anothers_row_finds_nothing(app, people, dentals):
    assert Program(app, people.salon.id).get("/calls", call_id="c2").get_json()["data"] == []


def test_a_refused_replay_leaves_anothers_delivery_as_it_is(app, platform, people, dentals):
    dental = Program(app, people.dental.id)
    before = dental.get(f"/deliveries/{dentals['delivery_id']}").get_json()
    Program(app, people.salon.id).post(f"/deliveries/{dentals['delivery_id']}/replay")
    assert dental.get(f"/deliveries/{dentals['delivery_id']}").get_json() == before
