"""Log lines: one an event, with the ids of the work; the same in threads, in deliveries and outside."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.observability import context
from app.observability import logging as lines
from app.observability.logging import configure_logging, get_logger
from app.services.platform import Platform
from tests.conftest import make_settings
from tests.people import People

Told = Callable[..., list[dict[str, Any]]]
CUSTOMER = "+4917011122233"
TOMORROW = (datetime.now(UTC) + timedelta(days=1)).date().isoformat()


@pytest.fixture
def told(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Told:
    """What was written, as it was written: the lines of an event, or all."""
    written: list[str] = []
    write = lines.write_line
    monkeypatch.setattr(lines, "write_line", lambda *said: (written.extend(said), write(*said)))

    def find(event: str | None = None) -> list[dict[str, Any]]:
        found = [json.loads(line) for line in list(written)]
        return [line for line in found if event in (None, line["event"])]

    return find


def test_a_request_keeps_its_own_id_and_answers_with_it(client: FlaskClient, people: People, told: Told) -> None:
    answer = client.get("/nowhere", headers={"X-Request-Id": "0123456789abcdef0123456789abcdef"})
    assert answer.headers["X-Request-Id"] == "0123456789abcdef0123456789abcdef"
    (line,) = told("request.answered")
    assert line["request_id"] == "0123456789abcdef0123456789abcdef"
    assert line["status"] == 404
    assert line["duration_ms"] >= 0


@pytest.mark.parametrize("given", [None, "short", "x" * 65, "with space inside", "+4917011122233", 'quo"ted-id'])
def test_an_id_of_another_form_is_replaced(client: FlaskClient, given: str | None) -> None:
    answer = client.get("/nowhere", headers={"X-Request-Id": given} if given else {})
    made = answer.headers["X-Request-Id"]
    assert made != given
    assert 8 <= len(made) <= 64


def test_each_request_has_another_id_and_leaves_nothing_behind(client: FlaskClient) -> None:
    ids = {client.get("/nowhere").headers["X-Request-Id"] for _ in range(5)}
    assert len(ids) == 5
    assert context.ids() == {}


def test_health_is_asked_too_often_for_a_line(client: FlaskClient, told: Told) -> None:
    answer = client.get("/health")
    assert "X-Request-Id" in answer.headers
    assert told("request.answered") == []


def test_a_webhook_is_one_line_with_its_ids_and_its_duration(client: FlaskClient, people: People, told: Told) -> None:
    answer = people.salon.text(client, CUSTOMER, "Are you open on Sunday?")
    (line,) = [line for line in told() if line.get("request_id")]
    assert line["event"] == "webhook.accepted"
    assert line["request_id"] == answer.headers["X-Request-Id"]
    assert line["org_id"] == str(people.salon.id)
    assert line["delivery_id"] > 0
    assert line["provider"] == "twilio"
    assert line["duration_ms"] >= 0


def test_a_refused_webhook_is_one_line(client: FlaskClient, people: People, told: Told) -> None:
    people.salon.vapi(client, {"type": "status-update"}, secret="wrong")
    (line,) = [line for line in told() if line.get("request_id")]
    assert (line["event"], line["code"], line["status"]) == ("webhook.refused", "signature_invalid", 403)
    assert line["org_id"] == str(people.salon.id)


def test_a_delivery_and_the_calls_it_makes_carry_its_ids(
    client: FlaskClient, people: People, told: Told, settle: Callable[..., None]
) -> None:
    people.salon.tool(client, "send_text", call_id="call-logs-1", phone=CUSTOMER, text="See you on Monday at ten")
    settle(lambda: [line for line in told("outbound.called") if line["circuit"] == "twilio_sms"])
    (call,) = [line for line in told("outbound.called") if line["circuit"] == "twilio_sms"]
    assert call["outcome"] == "ok"
    assert call["org_id"] == str(people.salon.id)
    assert call["duration_ms"] >= 0
    assert call["delivery_id"] > 0
    assert call["attempt"] == 1


def test_a_delivery_tells_its_attempt_and_forgets_it_afterwards(
    client: FlaskClient, people: People, told: Told, settle: Callable[..., None]
) -> None:
    people.salon.text(client, CUSTOMER, "Do you cut beards as well?")
    settle(lambda: told("delivery.processed"))
    (line,) = told("delivery.processed")
    (accepted,) = told("webhook.accepted")
    assert line["delivery_id"] == accepted["delivery_id"]
    assert line["org_id"] == str(people.salon.id)
    assert (line["attempt"], line["provider"]) == (1, "twilio")
    assert line["duration_ms"] >= 0
    assert context.ids() == {}


def test_what_answers_a_caller_in_a_thread_carries_the_requests_id(
    client: FlaskClient, people: People, told: Told
) -> None:
    people.salon.tool(client, "check_availability", call_id="call-logs-2", start=TOMORROW)
    (answered,) = told("webhook.answered")
    calls = told("outbound.called")
    assert calls
    assert {call["request_id"] for call in calls} == {answered["request_id"]}
    assert {call["org_id"] for call in calls} == {str(people.salon.id)}


def test_ids_come_along_into_a_thread_only_when_carried() -> None:
    seen: list[dict[str, Any]] = []
    with context.bound(delivery_id=7):
        carried = context.carry(lambda: seen.append(context.ids()))
        for function in (carried, lambda: seen.append(context.ids())):
            thread = threading.Thread(target=function)
            thread.start()
            thread.join(timeout=5)
    assert seen == [{"delivery_id": 7}, {}]


def test_libraries_speak_in_the_same_form_through_the_same_mask(platform: Platform, told: Told) -> None:
    logging.getLogger("rq.worker").warning("job for %s failed", CUSTOMER)
    (line,) = [line for line in told() if line["module"] == "rq.worker"]
    assert line["event"] == "job for [number] failed"
    assert line["level"] == "warning"


def test_of_a_librarys_exception_only_class_and_place_are_told(platform: Platform, told: Told) -> None:
    logger = logging.getLogger("gunicorn.test")
    try:
        raise RuntimeError("Jane wants an appointment")
    except RuntimeError:
        logger.exception("it failed")
    logger.error("worker: job failed\nTraceback (most recent call last):\n  x\nKeyError: 'Jane wants one'")
    first, second = [line for line in told() if line["module"] == "gunicorn.test"]
    assert (first["event"], first["error"]) == ("it failed", "RuntimeError")
    assert first["raised_at"].startswith("test_log_lines.py:")
    assert (second["event"], second["error"]) == ("worker: job failed", "KeyError")
    assert "Jane" not in json.dumps([first, second])


def test_our_own_lines_are_masked_too(platform: Platform, told: Told) -> None:
    get_logger("somewhere").info("thing.happened", who=CUSTOMER, body="see you", nested={"to": CUSTOMER})
    (line,) = told("thing.happened")
    assert CUSTOMER not in json.dumps(line)
    assert line["body"] == "[hidden]"


def test_a_line_is_written_whatever_its_fields_hold(platform: Platform, told: Told) -> None:
    get_logger("somewhere").info("thing.happened", half="a \ud800", large=2**70, at=datetime(2026, 1, 2, tzinfo=UTC))
    (line,) = told("thing.happened")
    assert line["large"] == 2**70
    assert line["half"] == "a \ud800"


def test_a_terminal_gets_lines_for_people(database_urls: Any, capsys: pytest.CaptureFixture[str], app: Flask) -> None:
    configure_logging(make_settings(database_urls, log_format="console"))
    try:
        get_logger("somewhere").info("thing.happened", who=CUSTOMER, attempt=3)
        logging.getLogger("rq.worker").warning("a library's line")
    finally:
        configure_logging(make_settings(database_urls))
    said = capsys.readouterr().err
    assert "thing.happened" in said
    assert "a library's line" in said
    assert CUSTOMER not in said
    assert not said.startswith("{")


def test_many_lines_at_once_are_masked_as_one_is(told):
    said = {
        "reason": "call +4917655544433 back",
        "api_key": "a-secret-of-this-test",
        "nested": {"number": "+4917655544433", "password": "x"},
        "listed": ["jane@example.com", 5],
        "org_id": "9b2c2f31-1c7b-4f5f-95ea-d9fa6de842d3",
        "attempt": 2,
    }
    lines.get_logger("here").info("one.said", **said)
    lines.tell_all("here", "many.said", [said, said])
    (one,), many = told("one.said"), told("many.said")
    assert len(many) == 2
    for line in many:
        assert {**line, "event": "", "timestamp": ""} == {**one, "event": "", "timestamp": ""}
    assert "4917655544433" not in str(many)
    assert "jane@" not in str(many)
