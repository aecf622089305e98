"""The door in the server's loop: who comes together shares a commit, and what cannot be stored so is lost to nobody."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import Client, TestResponse

from app.http.loop_door import LoopDoor
from app.http.quick_door import QuickDoor
from tests.eventually import eventually
from tests.integration.test_grouped_intake import commits, keys, locked, rows
from tests.integration.test_hanging_database import frozen
from tests.loop_client import LoopClient, as_bytes, parsed


@pytest.fixture
def door(app: Flask, platform, people) -> LoopDoor:
    """Of a process that knows the people."""
    platform.directory.warm()
    found = app.extensions["loop_door"]
    assert isinstance(found, LoopDoor)
    return found


@pytest.fixture
def framework(app: Flask) -> Client:
    quick = app.wsgi_app
    assert isinstance(quick, QuickDoor)
    return Client(quick.behind, TestResponse)


@pytest.fixture
def endpoint(platform, people):
    return platform.directory.endpoint("vapi", people.salon.vapi_token)


class Asked:
    """Requests put to the door one after the other, and what each was told."""

    def __init__(self, door: LoopDoor, salon: Any) -> None:
        self._door = door
        self._salon = salon
        self._lock = threading.Lock()
        self.told: dict[str, bytes | None] = {}
        self.rounds: list[int] = []

    def ask(self, name: str, *, call: str | None = None) -> None:
        message = {"type": "status-update", "status": name, "call": {"id": call or name}}
        raw = as_bytes(
            f"/webhooks/vapi/{self._salon.vapi_token}",
            json={"message": message},
            headers={"X-Vapi-Secret": self._salon.vapi_secret},
        )
        assert self._door.take(raw, name, self._tell)

    def _tell(self, answers: list[tuple[str, bytes | None]]) -> None:
        with self._lock:
            self.rounds.append(len(answers))
            self.told.update(answers)

    def await_all(self, count: int, *, seconds: float = 5) -> None:
        eventually(lambda: len(self.told) == count, seconds=seconds)


@pytest.fixture
def asked(door, people) -> Iterator[Asked]:
    return Asked(door, people.salon)


def key(name: str, call: str | None = None) -> str:
    return f"status-update:{call or name}:{name}"


def test_requests_that_come_together_share_one_commit_and_each_hears_of_it(platform, asked, endpoint, door):
    with locked(platform, endpoint, "call:held"):
        asked.ask("held", call="held")
        eventually(lambda: not door.rounds.is_idle(), seconds=2)
        names = [f"event-{number}" for number in range(8)]
        for name in names:
            asked.ask(name)
    asked.await_all(9)
    assert all(answer and parsed(answer).status_code == 200 for answer in asked.told.values())
    found = commits(platform)
    assert len({found[key(name)] for name in names}) <= 2, "those that came before the first round was late, and after"
    assert sum(asked.rounds) == 9


def test_the_same_event_twice_at_once_is_stored_once_and_thanked_for_twice(platform, asked, endpoint):
    with locked(platform, endpoint, "call:same"):
        for number in range(3):
            asked.ask("ringing", call="same")
            asked.told[f"asked {number}"] = asked.told.pop("ringing", None)
    eventually(lambda: sum(asked.rounds) == 3, seconds=5)
    assert keys(platform).count(key("ringing", "same")) == 1
    booked = rows(platform, "SELECT sum(accepted) FROM ledger_entries WHERE provider = 'vapi'")
    assert booked == [(1,)]


def test_a_lane_that_stays_locked_gives_its_round_back_to_be_served_one_by_one(platform, asked, endpoint, people, door):
    with locked(platform, endpoint, "call:stays"):
        asked.ask("stays", call="stays")
        asked.await_all(1)
        assert asked.told == {"stays": None}
        asked.ask("another")
        asked.await_all(2)
    answer = asked.told["another"]
    assert answer is not None
    assert parsed(answer).status_code == 200
    assert keys(platform).count(key("stays")) == 0


def test_a_database_that_hangs_sends_a_round_to_the_spool_and_its_senders_are_thanked(platform, asked, postgres):
    asked.ask("before")
    asked.await_all(1)
    with frozen(postgres):
        for number in range(5):
            asked.ask(f"event-{number}")
        asked.await_all(6)
        assert all(answer and parsed(answer).status_code == 200 for answer in asked.told.values())
        assert platform.spool.contents().lines == 5
    eventually(platform.database.answers, seconds=5)


def test_what_comes_behind_the_spool_goes_there_too(platform, asked, postgres, people, door, framework):
    loop = LoopClient(door, framework)
    with frozen(postgres):
        asked.ask("first", call="one")
        asked.await_all(1)
    eventually(platform.database.answers, seconds=5)
    assert (
        people.salon.vapi(loop, {"type": "status-update", "status": "second", "call": {"id": "one"}}).status_code == 200
    )
    assert (loop.taken, loop.served) == (1, 0)
    assert platform.spool.contents().lines == 2
    assert key("second", "one") not in keys(platform)
