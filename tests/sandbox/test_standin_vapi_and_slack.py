"""Vapi's and Slack's stand-ins: their keys, their fields, their ways of refusing."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError

from sandbox.standins import RemoteWorld, StandIns

KEY = "a-private-key"


@pytest.fixture
def world() -> Iterator[RemoteWorld]:
    with StandIns.running(latency=0.0) as world:
        world.vapi_key(KEY)
        world.slack_token("xoxb-1")
        world.slack_channel("C01", "alerts")
        yield world


def vapi(world: RemoteWorld, method: str, path: str, key: str = KEY, **options: Any) -> requests.Response:
    headers = {"Authorization": f"Bearer {key}"}
    return requests.request(method, world.vapi_url + path, headers=headers, timeout=5, **options)


def call_body(world: RemoteWorld) -> dict[str, Any]:
    return {
        "assistantId": world.assistant(KEY)["id"],
        "phoneNumberId": world.phone_number(KEY, "+12025550100")["id"],
        "customer": {"number": "+12025550123"},
    }


def test_a_wrong_key_is_401(world):
    for path in ("/assistant", "/phone-number", "/call"):
        assert vapi(world, "GET", path, key="wrong").status_code == 401


def test_assistants_and_numbers_are_arrays_with_a_limit(world):
    world.assistant(KEY, "First")
    second = world.assistant(KEY, "Second")
    world.phone_number(KEY, "+12025550100")
    assert [assistant["id"] for assistant in vapi(world, "GET", "/assistant?limit=1").json()] == [second["id"]]
    assert len(vapi(world, "GET", "/phone-number").json()) == 1
    assert vapi(world, "GET", "/assistant?limit=many").json()["statusCode"] == 400
    assert vapi(world, "GET", "/assistant?invented=1").status_code == 400


def test_a_call_is_created_fetched_and_listed(world):
    created = vapi(world, "POST", "/call", json=call_body(world))
    assert (created.status_code, created.json()["status"]) == (201, "queued")
    call_id = created.json()["id"]
    world.put_call(KEY, id=call_id, status="ended", endedReason="customer-ended-call")
    fetched = vapi(world, "GET", f"/call/{call_id}").json()
    assert (fetched["status"], fetched["customer"]) == ("ended", {"number": "+12025550123"})
    assert [call["id"] for call in vapi(world, "GET", "/call?limit=10").json()] == [call_id]
    assert vapi(world, "GET", "/call?createdAtGt=2999-01-01T00:00:00Z").json() == []


@pytest.mark.parametrize(
    "changes",
    [
        {"invented": 1},
        {"assistantId": None},
        {"assistantId": "not-a-uuid"},
        {"assistantId": str(uuid.UUID(int=1))},
        {"phoneNumberId": None},
        {"customer": None},
        {"customer": {"number": "555 0123"}},
        {"customer": {"number": "+12025550123", "nickname": "Jo"}},
    ],
)
def test_a_call_that_vapi_would_refuse_is_400(world, changes):
    answer = vapi(world, "POST", "/call", json=call_body(world) | changes)
    assert (answer.status_code, answer.json()["statusCode"]) == (400, 400)
    assert world.calls() == []


def test_another_organizations_call_is_not_found(world):
    call_id = vapi(world, "POST", "/call", json=call_body(world)).json()["id"]
    world.vapi_key("another-key")
    assert vapi(world, "GET", f"/call/{call_id}", key="another-key").status_code == 404


def slack(world: RemoteWorld, token: str = "xoxb-1") -> WebClient:
    return WebClient(token, base_url=world.slack_url, timeout=5)


def slack_error(world: RemoteWorld, token: str = "xoxb-1", **message: str) -> str:
    with pytest.raises(SlackApiError) as caught:
        slack(world, token).chat_postMessage(**({"channel": "C01", "text": "Queue stands still"} | message))
    assert caught.value.response.status_code == 200
    return caught.value.response["error"]


def test_a_post_is_kept_and_the_token_is_somebody(world):
    answer = slack(world).chat_postMessage(channel="#alerts", text="Queue stands still")
    assert (answer["ok"], answer["channel"]) == (True, "C01")
    assert [post["text"] for post in world.slack_posts()] == ["Queue stands still"]
    assert slack(world).auth_test()["ok"]


def test_slack_refuses_with_200_and_a_word(world):
    world.slack_token("xoxb-3", scopes=["chat:write"])
    world.slack_token("xoxb-4", scopes=[])
    world.slack_channel("C02", "elsewhere", member=False)
    world.slack_channel("C03", "old", archived=True)
    assert slack_error(world, token="xoxb-2") == "invalid_auth"
    assert slack_error(world, channel="C99") == "channel_not_found"
    assert slack_error(world, token="xoxb-3", channel="C02") == "not_in_channel"
    assert slack_error(world, token="xoxb-4") == "missing_scope"
    assert slack_error(world, channel="C03") == "is_archived"
    assert slack_error(world, text="") == "no_text"
    assert slack_error(world, text="x" * 40_001) == "msg_too_long"


def test_slack_throttles_with_429_and_retry_after(world):
    world.fault("slack", "throttle_429", times=1, retry_after=7)
    with pytest.raises(SlackApiError) as caught:
        slack(world).chat_postMessage(channel="C01", text="Hello")
    assert caught.value.response.status_code == 429
    assert caught.value.response.headers["Retry-After"] == "7"
    assert caught.value.response["error"] == "ratelimited"


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("assistant", {"firstMessage": 1}),
        ("assistant", {"firstMessageMode": "shouts"}),
        ("assistant", {"metadata": "a note"}),
        ("assistant", {"invented": True}),
        ("phone-number", {"assistantId": str(uuid.uuid4())}),
    ],
)
def test_a_setting_that_vapi_does_not_take_is_refused_and_changes_nothing(world, kind, fields):
    there = {"assistant": world.assistant(KEY), "phone-number": world.phone_number(KEY, "+12025550100")}[kind]
    path = f"/{kind}/{there['id']}"
    assert vapi(world, "PATCH", path, json=fields).status_code == 400
    assert vapi(world, "GET", path).json() == there
