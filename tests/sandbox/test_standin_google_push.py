"""Google's push channels as the stand-in keeps them: what it refuses, and what arrives at the address."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from sandbox.standins import RemoteWorld
from tests.eventually import eventually
from tests.sandbox.test_standin_google import CALENDAR, events, insert, refusal, service, world

__all__ = ["events", "world"]
ADDRESS = "https://desk.example/webhooks/google-calendar/token"


class Listener:
    """An address that notifications arrive at; answers what ``answers`` says, then 204."""

    def __init__(self) -> None:
        self.heard: list[dict[str, str]] = []
        self.answers: list[int] = []


@pytest.fixture
def listener(world: RemoteWorld) -> Iterator[Listener]:
    listening = Listener()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.headers["Content-Length"] == "0"
            listening.heard.append({name.lower(): value for name, value in self.headers.items()} | {"path": self.path})
            self.send_response(listening.answers.pop(0) if listening.answers else 204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    world.pushes(via=f"http://127.0.0.1:{server.server_port}")
    yield listening
    server.shutdown()
    thread.join(timeout=10)
    server.server_close()


def watch(world: RemoteWorld, channel_id: str = "channel-1", **changes: str) -> Any:
    body = {"id": channel_id, "type": "web_hook", "address": ADDRESS, "token": "between us"} | changes
    return service(world).events().watch(calendarId=CALENDAR, body=body)


def test_a_channel_greets_and_then_tells_of_each_change_with_a_growing_number(world, events, listener):
    opened = watch(world).execute()
    assert (opened["kind"], opened["id"], opened["token"]) == ("api#channel", "channel-1", "between us")
    assert opened["expiration"].isdecimal()
    insert(events)
    world.insert_foreign_event(CALENDAR, "2027-03-02T10:00", "2027-03-02T11:00")
    eventually(lambda: len(listener.heard) == 3)
    told = sorted(listener.heard, key=lambda one: int(one["x-goog-message-number"]))
    assert [one["x-goog-resource-state"] for one in told] == ["sync", "exists", "exists"]
    assert told[0]["x-goog-message-number"] == "1"
    assert len({one["x-goog-message-number"] for one in told}) == 3
    for one in told:
        assert one["x-goog-resource-id"] == opened["resourceId"]
        assert (one["x-goog-channel-id"], one["x-goog-channel-token"]) == ("channel-1", "between us")
        assert one["x-goog-channel-expiration"].endswith(" GMT")
        assert one["path"] == "/webhooks/google-calendar/token"


def test_a_notification_is_repeated_after_a_5xx_and_not_after_a_4xx(world, listener):
    listener.answers = [503, 404]
    watch(world).execute()
    eventually(lambda: world.notifications())
    (made,) = world.notifications()
    assert (made["answer"], made["attempts"]) == (404, 2)


def test_a_stopped_or_expired_channel_says_no_more(world, events, listener):
    opened = watch(world).execute()
    world.pushes(channel_seconds=0.0)
    watch(world, "channel-2").execute()
    stop = {"id": "channel-1", "resourceId": opened["resourceId"]}
    service(world).channels().stop(body=stop).execute()
    insert(events)
    eventually(lambda: len(world.notifications()) == 2)
    assert [channel["lives"] for channel in world.channels(CALENDAR)] == [False, False]
    assert refusal(service(world).channels().stop(body=stop)) == (404, "notFound")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"address": "http://desk.example/"}, "push.webhookUrlNotHttps"),
        ({"id": ""}, "required"),
        ({"id": "x" * 65}, "required"),
        ({"type": "carrier_pigeon"}, "channelUnknown"),
        ({"token": "x" * 257}, "invalid"),
    ],
)
def test_what_google_would_not_open_is_refused(world, changes, reason):
    assert refusal(watch(world, **changes)) == (400, reason)


def test_an_id_serves_once(world, listener):
    watch(world).execute()
    assert refusal(watch(world)) == (400, "channelIdNotUnique")
