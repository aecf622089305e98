"""`tail`: what comes in and what ends, told once, from now on."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from app.errors import DatabaseUnavailable
from app.services import following
from tests.command_line import CommandLine
from tests.eventually import eventually

CUSTOMER = "+4915155500073"


@pytest.fixture
def told(platform) -> Iterator[list[dict]]:
    """What somebody who follows everything has been told so far."""
    rows: list[dict] = []
    ended = threading.Event()

    def listen() -> None:
        for row in following.follow(platform, every_seconds=0.05, seconds=20):
            rows.append(row)
            if ended.is_set():
                return

    threading.Thread(target=listen, daemon=True).start()
    yield rows
    ended.set()


def test_an_event_is_told_once_when_it_comes_and_once_when_it_ends(client, people, settle, told):
    def is_followed() -> bool:
        people.salon.text(client, CUSTOMER, "Are you open on Friday afternoon?")
        return bool(told)

    eventually(is_followed, every=0.2)
    people.dental.text(client, CUSTOMER, "Is Tuesday at ten still free?")
    of_dental = lambda: [row["what"] for row in told if row["org_id"] == str(people.dental.id)]  # noqa: E731
    settle(lambda: "processed" in of_dental())
    assert of_dental() == ["received", "processed"]
    assert all("Tuesday" not in json.dumps(row) for row in told)


def test_looking_again_tells_nothing_twice(platform, people, client):
    with platform.database.transaction(system=True) as session:
        watch = following._Watch(None, 0, datetime.now(UTC) - timedelta(minutes=1))
        for _ in range(3):
            people.salon.text(client, CUSTOMER, "One of several texts that came.")
        assert len(watch.look(session)) == 3
        assert watch.look(session) == []


def test_one_organization_is_followed_by_its_id(app, client, people):
    line = CommandLine(app)
    printed: list[str] = []

    def follow() -> None:
        words = ("tail", "--org", people.dental.id, "--json", "--every", 0.1, "--seconds", 2.5)
        printed.append(line.run(*words).stdout)

    follower = threading.Thread(target=follow)
    follower.start()
    while follower.is_alive() and not printed:
        people.salon.text(client, CUSTOMER, "This is nothing for the dentist.")
        people.dental.text(client, CUSTOMER, "This is for the dentist alone.")
        follower.join(timeout=0.2)
    rows = [json.loads(one) for one in printed[0].splitlines()]
    assert rows
    assert {row["org_id"] for row in rows} == {str(people.dental.id)}
    assert len({row["id"] for row in rows}) == len(rows)


def test_an_organization_that_is_not_there_is_told(app):
    refusal = CommandLine(app).run("tail", "--org", "00000000-0000-4000-8000-000000000001", "--json", "--seconds", 1)
    assert refusal.exit_code == 1
    assert json.loads(refusal.stderr)["error"]["code"] == "not_found"


def test_it_goes_on_after_the_database_has_been_away(platform, monkeypatch):
    looks = iter([DatabaseUnavailable("away"), DatabaseUnavailable("away"), None, None])

    def look(self: object, session: object) -> list[dict]:
        trouble = next(looks)
        if trouble is not None:
            raise trouble
        return [{"what": "received", "id": 1}]

    monkeypatch.setattr(following._Watch, "look", look)
    rows = following.follow(platform, every_seconds=0.01, seconds=5)
    assert [next(rows)["what"] for _ in range(2)] == ["database_away", "received"]


def test_ctrl_c_ends_it_without_a_word(app, monkeypatch):
    def interrupted(*_: object, **__: object) -> Iterator[dict]:
        yield {"at": "2031-03-03T10:00:00.000Z", "what": "database_away"}
        raise KeyboardInterrupt

    monkeypatch.setattr(following, "follow", interrupted)
    done = CommandLine(app).run("tail")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == "10:00:00  the database does not answer; looking again\n"


def test_what_ends_while_it_is_looked_at_is_told_whole(platform, people, client, monkeypatch):
    people.salon.text(client, CUSTOMER, "Is Tuesday at ten still free?")
    arrived = following.rows.list_arrived

    def list_and_end(session, **given):
        found = arrived(session, **given)
        with platform.database.transaction(system=True) as other:
            other.execute(text("UPDATE webhook_delivery_log SET status = 'processed', finished_at = now()"))
        return found

    with platform.database.transaction(system=True) as session:
        watch = following._Watch(None, 0, datetime.now(UTC) - timedelta(minutes=1))
        monkeypatch.setattr(following.rows, "list_arrived", list_and_end)
        assert [row["what"] for row in watch.look(session)] == ["received"]
    with platform.database.transaction(system=True) as session:
        assert [row["what"] for row in watch.look(session)] == ["processed"]


def test_a_flood_is_told_to_its_end(platform, people, client, monkeypatch):
    monkeypatch.setattr(following, "MOST", 2)
    monkeypatch.setattr(following.rows, "IDS_BACK", 1)
    for number in range(7):
        people.salon.text(client, CUSTOMER, f"Text number {number} of a flood.")
    with platform.database.transaction(system=True) as other:
        others = "finished_at = clock_timestamp() + id * interval '1 millisecond'"
        other.execute(text(f"UPDATE webhook_delivery_log SET status = 'processed', {others}"))
    watch = following._Watch(None, 0, datetime.now(UTC) - timedelta(minutes=1))
    told: list[dict] = []
    for _ in range(8):
        with platform.database.transaction(system=True) as session:
            told += watch.look(session)
    assert sorted(row["what"] for row in told) == ["processed"] * 7 + ["received"] * 7
    assert not watch.is_behind
