"""The doors of the webhooks, the loop's, the quick one, the framework's: nobody outside can tell which was taken."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text
from werkzeug.test import Client, TestResponse

from app.http.quick_door import QuickDoor
from app.integrations.doors import DOORS
from app.observability import logging as lines
from tests.doors import Connected
from tests.eventually import eventually
from tests.loop_client import LoopClient
from tests.prometheus import parse

STATUS = {"type": "status-update", "status": "in-progress", "call": {"id": "c1"}}
SMS = {"From": "+4915112345678", "To": "+4930111110001", "Body": "Hello", "NumMedia": "0", "ToCity": ""}


@pytest.fixture
def door(app: Flask) -> QuickDoor:
    quick = app.wsgi_app
    assert isinstance(quick, QuickDoor)
    return quick


@pytest.fixture
def framework(door: QuickDoor) -> Client:
    """Asks the framework, past the quick door."""
    return Client(door.behind, TestResponse)


@pytest.fixture
def loop(app: Flask, framework: Client) -> LoopClient:
    """Asks the loop's door, and what that leaves the framework."""
    return LoopClient(app.extensions["loop_door"], framework)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    write = lines.write_line
    monkeypatch.setattr(lines, "write_line", lambda *said: (found.extend(map(json.loads, said)), write(*said)))
    return found


def heard(answer: Any) -> tuple[int, dict[str, str], bytes]:
    """What is told to whoever asks, without what differs from one request to the next."""
    headers = {name.lower(): value for name, value in answer.headers.items() if name != "X-Request-Id"}
    assert answer.headers["X-Request-Id"]
    return answer.status_code, headers, answer.data


def vapi(message: dict[str, Any], **more: Any) -> Callable[[Any, Any], TestResponse]:
    return lambda salon, client: salon.vapi(client, message, **more)


def raw(body: bytes, content_type: str = "application/json", **headers: str) -> Callable[[Any, Any], TestResponse]:
    def ask(salon: Any, client: Any) -> TestResponse:
        return client.post(
            f"/webhooks/vapi/{salon.vapi_token}",
            data=body,
            content_type=content_type,
            headers={"X-Vapi-Secret": salon.vapi_secret, **headers},
        )

    return ask


ASKED = {
    "an event": vapi(STATUS),
    "an event nobody handles": vapi({"type": "speech-update", "call": {"id": "c1"}, "timestamp": 1}),
    "a question of a caller": vapi({"type": "tool-calls", "call": {"id": "c1"}, "toolCallList": []}),
    "a wrong secret": vapi(STATUS, secret="wrong"),
    "no JSON": raw(b"{"),
    "another content type": raw(b"{}", "text/plain"),
    "a content type with a charset": raw(json.dumps({"message": STATUS}).encode(), "application/json; charset=utf-8"),
    "a request with an id": raw(json.dumps({"message": STATUS}).encode(), **{"X-Request-Id": "given-by-them"}),
    "what jsonb cannot hold": vapi({**STATUS, "call": {"id": "c2"}, "note": "a\x00b"}),
    "a body beyond the cap": raw(b" " * 6_000_000),
    "an unknown token": lambda salon, client: client.post("/webhooks/vapi/nobody", data=b"{}"),
    "a text": lambda salon, client: salon.twilio(client, {**SMS, "MessageSid": "SM" + "1" * 32}),
    "a text's status": lambda salon, client: salon.twilio(
        client, {"MessageSid": "SM" + "2" * 32, "MessageStatus": "sent", "To": "+4915112345678"}, path="/status"
    ),
    "a query that is signed too": lambda salon, client: salon.twilio(
        client, {**SMS, "MessageSid": "SM" + "3" * 32}, query="?a=%20b"
    ),
    "a status where there is none": lambda salon, client: client.post(f"/webhooks/vapi/{salon.vapi_token}/status"),
    "a calendar that changed": lambda salon, client: client.post(
        f"/webhooks/google-calendar/{salon.google_token}",
        data=b"",
        headers={
            "X-Goog-Channel-Token": salon.channel_token,
            "X-Goog-Channel-ID": "channel-1",
            "X-Goog-Resource-ID": "resource-1",
            "X-Goog-Resource-State": "exists",
            "X-Goog-Message-Number": "7",
        },
    ),
    "a GET": lambda salon, client: client.get(f"/webhooks/vapi/{salon.vapi_token}"),
}


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
def test_all_doors_say_the_same_and_store_the_same(asked, people, platform, client, framework, loop):
    platform.directory.warm()
    said = []
    for one in (client, framework, loop):
        with platform.database.transaction(system=True) as session:
            session.execute(text("DELETE FROM webhook_delivery_log"))
            session.execute(text("DELETE FROM processed_webhook_events"))
        said.append((heard(asked(people.salon, one)), rows(platform)))
    assert said[0] == said[1]
    assert said[2] == said[1]


IN_THE_LOOP = {
    *("an event", "an event nobody handles", "a content type with a charset", "a request with an id", "a text"),
    *("a text's status", "a query that is signed too", "a calendar that changed", "what jsonb cannot hold"),
}


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
def test_the_loop_serves_what_is_in_order_and_leaves_the_rest(asked, people, platform, loop, request):
    platform.directory.warm()
    asked(people.salon, loop)
    assert loop.taken == loop.served == (request.node.callspec.id in IN_THE_LOOP)


def rows(platform) -> list[tuple]:
    with platform.database.transaction(system=True) as session:
        found = session.execute(
            text(
                "SELECT d.provider, d.type, d.event_key, d.lane_key, d.status, d.error_code, d.occurred_at,"
                " p.body::text"
                " FROM webhook_delivery_log d LEFT JOIN webhook_payloads p ON p.delivery_id = d.id ORDER BY d.id"
            )
        )
        return [tuple(row) for row in found]


@pytest.mark.parametrize("provider", DOORS)
def test_all_doors_say_the_same_to_every_other_provider(provider, people, platform, client, framework, loop):
    sender = Connected(platform, people.salon.id, provider)
    platform.directory.warm()
    sample = sender.made()
    quick = heard(sender.post(client, sample))
    assert quick[0] == 200
    assert heard(sender.post(framework, sample)) == quick
    assert heard(sender.post(loop, sample)) == quick
    assert loop.served == 1


def test_an_event_in_order_never_sees_the_framework_and_a_stranger_does(people, platform, client, door, monkeypatch):
    platform.directory.warm()
    seen = []

    def framework(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        seen.append(environ)
        start_response("500 FRAMEWORK", [])
        return []

    monkeypatch.setattr(door, "behind", framework)
    assert people.salon.vapi(client, STATUS).status_code == 200
    assert not seen
    assert people.salon.vapi(client, STATUS, secret="wrong").status_code == 500
    (handed,) = seen
    assert json.loads(handed["wsgi.input"].read()) == {"message": STATUS}, "with the body as it came"


def test_all_doors_count_and_write_the_same_of_an_event(people, platform, app, client, framework, loop, written):
    platform.directory.warm()
    told, counted = [], []
    for number, one in enumerate((client, framework, loop)):
        before = series(app)
        del written[:]
        answer = people.salon.vapi(one, {**STATUS, "call": {"id": f"call {number}"}})
        eventually(lambda: any(line["event"] == "webhook.accepted" for line in written), seconds=5)
        after = series(app)
        (line,) = [line for line in written if line["event"] == "webhook.accepted"]
        assert line["request_id"] == answer.headers["X-Request-Id"]
        told.append({name: value for name, value in line.items() if name not in VARYING})
        counted.append({key: after[key] - before.get(key, 0) for key in after if after[key] != before.get(key, 0)})
    assert told[0] == told[1] == told[2]
    assert counted[0] == counted[1] == counted[2]
    assert any("webhooks_accepted" in name for name, _ in counted[0])


VARYING = {"timestamp", "delivery_id", "duration_ms", "request_id"}


def series(app: Flask) -> dict[Any, float]:
    found = parse(FlaskClient(app).get("/metrics").get_data(as_text=True))
    return {
        key: value
        for key, value in found.items()
        if key[0].startswith("voicedesk_webhooks") or (key[0].endswith("request_seconds_count") and _is_webhook(key[1]))
    }


def _is_webhook(labels: frozenset[tuple[str, str]]) -> bool:
    return any(value.startswith("/webhooks") for _, value in labels)
