"""Grouped intake: what arrives together shares one commit, nobody waits for company, and nobody pays for another."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from uuid import uuid4

import psycopg2
import pytest
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy import text
from sqlalchemy.orm import Session

from app.database import at_once
from app.database.pings import FRESH_SECONDS
from app.errors import DatabaseUnavailable
from app.integrations.events import InboundEvent
from app.services import intake, together
from app.services.platform import Platform
from tests.conftest import run_as_superuser
from tests.eventually import eventually
from tests.integration.test_hanging_database import frozen

TOGETHER = 8


@pytest.fixture
def endpoint(platform: Platform, people):
    with platform.database.transaction(system=True) as session:
        token = session.execute(text("SELECT token FROM integrations WHERE provider = 'twilio' LIMIT 1")).scalar_one()
    return platform.directory.endpoint("twilio", token)


@pytest.fixture
def patient(monkeypatch) -> None:
    """Who waits for a group waits for the one before it, however long that takes."""
    monkeypatch.setattr(together, "IMPATIENT_SECONDS", 30.0)


def event(key: str, *, lane: str | None = None, payload: dict | None = None) -> InboundEvent:
    return InboundEvent(
        provider="test", type="probe", event_key=key, lane_key=lane or f"lane of {key}", payload=payload or {}
    )


def rows(platform: Platform, what: str) -> list:
    with platform.database.transaction(system=True) as session:
        return [tuple(row) for row in session.execute(text(what)).all()]


def keys(platform: Platform, status: str = "received") -> list[str]:
    return sorted(
        row[0] for row in rows(platform, f"SELECT event_key FROM webhook_delivery_log WHERE status = '{status}'")
    )


def commits(platform: Platform) -> dict[str, str]:
    """Which commit each event came with."""
    return dict(rows(platform, "SELECT event_key, xmin::text FROM webhook_delivery_log"))


@contextmanager
def locked(platform: Platform, endpoint, lane: str) -> Iterator[None]:
    """Somebody holds a lane within the block."""
    intake.accept(platform, endpoint, event(f"first in {lane}", lane=lane))
    with platform.database.transaction(system=True) as session:
        session.execute(text("SELECT FROM lanes WHERE lane_key = :lane FOR UPDATE"), {"lane": lane})
        yield


@contextmanager
def held_up(platform: Platform, endpoint, pool: ThreadPoolExecutor, events: list[InboundEvent]) -> Iterator[list]:
    """The events wait behind a group that stands before a lock, and go on when the block ends; what became of them."""
    before = Future[intake.Accepted]()

    def accept(one: InboundEvent) -> intake.Accepted:
        return intake.accept(platform, endpoint, one)

    with locked(platform, endpoint, "held up"):
        before = pool.submit(accept, event("before", lane="held up"))
        eventually(lambda: not platform.groups.rounds.is_idle(), seconds=2)
        futures = []
        for number, one in enumerate(events):
            futures.append(pool.submit(accept, one))
            eventually(lambda n=number: platform.groups.rounds.waiting() == n + 1, seconds=2)
        yield futures
    assert not before.result(timeout=10).duplicate


def test_events_that_arrive_together_share_one_commit_and_each_is_stored_once(platform, endpoint, patient):
    names = [f"event {number}" for number in range(TOGETHER)]
    with ThreadPoolExecutor(TOGETHER + 1) as pool:
        with held_up(platform, endpoint, pool, [event(name) for name in names]) as futures:
            pass
        accepted = [future.result(timeout=10) for future in futures]
    assert not any(one.duplicate or one.spooled for one in accepted)
    found = commits(platform)
    assert len({found[name] for name in names}) == 1
    assert [one.delivery_id for one in accepted] == sorted(one.delivery_id for one in accepted), "first come, first"
    booked = rows(platform, "SELECT sum(accepted) FROM ledger_entries WHERE provider = 'test'")
    assert booked == [(TOGETHER + 2,)]


def test_who_comes_alone_waits_for_nobody(platform, endpoint, patient):
    for number in range(3):
        intake.accept(platform, endpoint, event(f"event {number}"))
    assert len(set(commits(platform).values())) == 3
    assert platform.groups.rounds.is_idle()


def test_one_event_that_the_database_refuses_is_kept_raw_alone_and_its_group_is_stored(platform, endpoint, patient):
    good = [event(f"event {number}") for number in range(4)]
    bad = event("bad", payload={"text": "a\x00b"})
    with ThreadPoolExecutor(TOGETHER) as pool:
        with held_up(platform, endpoint, pool, [*good[:2], bad, *good[2:]]) as futures:
            pass
        assert not any(future.result(timeout=10).duplicate for future in futures)
    assert set(keys(platform)) >= {one.event_key for one in good}
    assert len(keys(platform, "dead")) == 1


def test_the_same_event_five_times_in_one_group_is_stored_once(platform, endpoint, patient):
    with ThreadPoolExecutor(TOGETHER) as pool:
        with held_up(platform, endpoint, pool, [event("same")] * 5) as futures:
            pass
        assert sorted(future.result(timeout=10).duplicate for future in futures) == [False, True, True, True, True]
    assert keys(platform).count("same") == 1


def test_a_lane_that_stays_locked_holds_up_its_own_event_and_not_those_of_its_group(platform, endpoint, patient):
    with ThreadPoolExecutor(TOGETHER) as pool, locked(platform, endpoint, "stays locked"):
        stays = event("stays", lane="stays locked")
        others = [event(f"event {number}") for number in range(4)]
        with held_up(platform, endpoint, pool, [stays, *others]) as futures:
            pass
        began = time.monotonic()
        assert not any(future.result(timeout=10).duplicate for future in futures[1:])
        assert time.monotonic() - began < 1.5, "within the lane's own time limit of two seconds"
        with pytest.raises(DatabaseUnavailable):
            futures[0].result(timeout=10)
    assert not intake.accept(platform, endpoint, stays).duplicate


def test_a_group_that_takes_long_is_overtaken_by_another(platform, endpoint):
    with ThreadPoolExecutor(TOGETHER) as pool, locked(platform, endpoint, "held"):
        slow = pool.submit(intake.accept, platform, endpoint, event("slow", lane="held"))
        eventually(lambda: not platform.groups.rounds.is_idle(), seconds=2)
        began = time.monotonic()
        assert not intake.accept(platform, endpoint, event("quick")).duplicate
        assert time.monotonic() - began < 1
        assert not slow.done()
    assert not slow.result(timeout=5).duplicate


def test_a_database_that_hangs_lets_all_go_within_their_bound_and_none_is_stored_twice(platform, endpoint, postgres):
    names = [f"event {number}" for number in range(12)]

    def accept(name: str) -> float:
        platform.database.hurry(1.0)
        began = time.monotonic()
        with pytest.raises(DatabaseUnavailable):
            intake.accept(platform, endpoint, event(name))
        return time.monotonic() - began

    intake.accept(platform, endpoint, event("before"))
    with frozen(postgres), ThreadPoolExecutor(12) as pool:
        assert max(pool.map(accept, names)) < 2.5
    eventually(platform.database.answers, seconds=5)
    assert platform.groups.rounds.is_idle()
    for name in names:
        intake.accept(platform, endpoint, event(name))
    assert keys(platform) == sorted([*names, "before"])


def test_connections_killed_in_the_middle_of_a_group_lose_nothing(platform, endpoint, postgres, database_urls, patient):
    names = [f"event {number}" for number in range(TOGETHER)]

    def kill_whom_a_lock_holds_up() -> bool:
        with psycopg2.connect(postgres.superuser_url()) as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = %s AND wait_event_type = 'Lock'",
                (database_urls.name,),
            )
            killed = cursor.rowcount > 0
        connection.close()
        return killed

    with ThreadPoolExecutor(TOGETHER) as pool, locked(platform, endpoint, "held"):
        futures = {name: pool.submit(intake.accept, platform, endpoint, event(name, lane="held")) for name in names}
        eventually(lambda: platform.groups.rounds.waiting() == TOGETHER - 1, seconds=2)
        eventually(kill_whom_a_lock_holds_up, seconds=2, every=0.01)  # a group of one
        eventually(kill_whom_a_lock_holds_up, seconds=2, every=0.01)  # the group that waited for it
    refused = {name for name, future in futures.items() if future.exception(timeout=10) is not None}
    assert refused
    assert set(keys(platform)) >= set(names) - refused, "what was told as stored is there"
    for name in sorted(refused):
        intake.accept(platform, endpoint, event(name, lane="held"))
    assert keys(platform) == sorted([*names, "first in held"])


def test_groups_of_two_processes_over_the_same_lanes_never_deadlock_and_keep_their_order(platform, endpoint, another):
    second = another()
    lanes = [f"lane {number}" for number in range(6)]
    start = threading.Barrier(2 * TOGETHER)

    def accept_many(number: int) -> None:
        mine = platform if number % 2 else second
        start.wait(10)
        for turn in range(6):
            lane = lanes[(number * 5 + turn * (1 if number % 3 else -1)) % len(lanes)]
            assert not intake.accept(mine, endpoint, event(f"{number}.{turn}", lane=lane)).duplicate

    with ThreadPoolExecutor(2 * TOGETHER) as pool:
        list(pool.map(accept_many, range(2 * TOGETHER)))
    assert len(keys(platform)) == 2 * TOGETHER * 6
    assert len(rows(platform, "SELECT DISTINCT xmin FROM webhook_delivery_log")) < 2 * TOGETHER * 6


def cut_connections(postgres, database_urls) -> None:
    """All of the product's connections end, as when a server fails over; the server is there."""
    run_as_superuser(
        postgres,
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database_urls.name}'"
        " AND pid <> pg_backend_pid()",
    )


def test_an_event_that_meets_a_connection_that_was_just_cut_is_stored_on_another(
    platform, endpoint, postgres, database_urls
):
    intake.accept(platform, endpoint, event("before"))
    cut_connections(postgres, database_urls)
    assert not intake.accept(platform, endpoint, event("after")).duplicate
    assert keys(platform) == ["after", "before"]
    assert platform.spool.folder.is_empty()


@pytest.mark.parametrize("idle_seconds", [0.0, FRESH_SECONDS])
def test_a_transaction_that_meets_connections_that_were_cut_has_another(
    idle_seconds, platform, postgres, database_urls
):
    with platform.database.transaction(system=True), platform.database.transaction(system=True):
        """Two are in the pool."""
    cut_connections(postgres, database_urls)
    time.sleep(idle_seconds)
    assert rows(platform, "SELECT 1") == [(1,)]


def test_a_transaction_whose_connection_is_cut_in_its_middle_is_not_begun_again(platform, postgres, database_urls):
    def be_cut_off() -> None:
        with platform.database.transaction(system=True) as session:
            begun.append(session)
            cut_connections(postgres, database_urls)
            session.execute(text("SELECT 1"))

    begun: list[Session] = []
    with pytest.raises(DatabaseUnavailable):
        be_cut_off()
    assert len(begun) == 1


def test_a_statement_of_its_own_sees_its_organization_alone_and_survives_connections_that_were_cut(
    platform, people, postgres, database_urls
):
    names = text("SELECT name FROM organizations")
    for _ in range(2):
        assert [row.name for row in platform.database.at_once(people.salon.id).execute(names, {}).all()] == [
            people.salon.name
        ]
        cut_connections(postgres, database_urls)
    assert len(platform.database.at_once(system=True).execute(names, {}).all()) > 1


@pytest.mark.parametrize("whose", [{}, {"org_id": uuid4(), "system": True}], ids=["nobody", "both"])
def test_a_statement_of_its_own_belongs_to_one_organization_or_to_the_system(whose, platform):
    with pytest.raises(ValueError, match="one organization or to the system"):
        platform.database.at_once(**whose)


def test_an_event_costs_the_server_one_message(platform, endpoint, monkeypatch):
    intake.accept(platform, endpoint, event("first"))
    asked: list[str] = []
    ask = at_once.ask

    def note(_connection, _cursor, statement, *_):
        asked.append(statement)

    def note_and_ask(engine, message, values):
        asked.append(message)
        return ask(engine, message, values)

    monkeypatch.setattr(at_once, "ask", note_and_ask)
    sqlalchemy_event.listen(platform.database.engine, "before_cursor_execute", note)
    try:
        intake.accept(platform, endpoint, event("second"))
    finally:
        sqlalchemy_event.remove(platform.database.engine, "before_cursor_execute", note)
    assert len(asked) == 1
    assert asked[0].startswith("SET LOCAL ROLE")
