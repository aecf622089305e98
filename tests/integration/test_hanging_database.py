"""A PostgreSQL that hangs, which is worse than a dead one: it takes statements and never answers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psycopg2
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app.database.patience import CONNECT_SECONDS
from app.errors import DatabaseUnavailable
from tests.eventually import eventually


@contextmanager
def frozen(postgres) -> Iterator[None]:
    """The server's processes are stopped by a signal; its connections stay open."""
    postgres.freeze()
    try:
        yield
    finally:
        postgres.thaw()


def read_one(platform, *, timeout_ms: int = 500) -> int:
    with platform.database.transaction(system=True, statement_timeout_ms=timeout_ms) as session:
        return int(session.execute(text("SELECT 1")).scalar_one())


def answers(platform) -> bool:
    try:
        return read_one(platform) == 1
    except DatabaseUnavailable:
        return False


def seconds_until_refused(platform) -> float:
    began = time.monotonic()
    with pytest.raises(DatabaseUnavailable):
        read_one(platform)
    return time.monotonic() - began


def test_a_transaction_gives_up_soon_after_its_time_limit(platform, postgres):
    assert read_one(platform) == 1
    with frozen(postgres):
        assert 0.4 < seconds_until_refused(platform) < 4


def test_after_a_hang_the_database_is_left_alone_for_a_moment_and_then_asked_again(platform, postgres):
    read_one(platform)
    with frozen(postgres):
        seconds_until_refused(platform)
        assert seconds_until_refused(platform) < 0.1
    eventually(lambda: answers(platform), seconds=5)


def test_many_threads_are_all_set_free(platform, postgres):
    read_one(platform)
    with frozen(postgres), ThreadPoolExecutor(16) as pool:
        began = time.monotonic()
        assert all(waited < 5 for waited in pool.map(lambda _: seconds_until_refused(platform), range(32)))
        assert time.monotonic() - began < 8
    eventually(lambda: answers(platform), seconds=5)


def test_a_process_that_began_while_the_database_hung_sets_its_threads_free_together(platform, postgres):
    with frozen(postgres), ThreadPoolExecutor(16) as pool:
        assert max(pool.map(lambda _: seconds_until_refused(platform), range(16))) < 6, "not one after the other"
    eventually(lambda: answers(platform), seconds=5)


def test_a_connection_is_not_waited_for_without_a_limit_by_who_has_set_none(platform, postgres):
    with frozen(postgres):
        began = time.monotonic()
        with pytest.raises(psycopg2.OperationalError):
            psycopg2.connect(postgres.superuser_url())
        assert time.monotonic() - began < CONNECT_SECONDS + 2


def test_the_health_door_says_so_within_three_seconds(app, platform, postgres):
    read_one(platform)
    with frozen(postgres):
        began = time.monotonic()
        assert app.test_client().get("/health/database").status_code == 503
        assert time.monotonic() - began < 3


def test_a_statement_that_is_merely_slow_is_ended_by_the_server_and_its_connection_is_kept(platform):
    with (
        pytest.raises(DBAPIError, match="statement timeout"),
        platform.database.transaction(system=True, statement_timeout_ms=100) as session,
    ):
        session.execute(text("SELECT pg_sleep(5)"))
    assert read_one(platform) == 1


def test_a_transaction_whose_process_is_stopped_or_cut_off_in_the_middle_gives_its_locks_back(
    platform, people, monkeypatch
):
    monkeypatch.setattr("app.database.IDLE_MS", 300)
    lock = text("SELECT 1 FROM organizations WHERE id = :id FOR UPDATE NOWAIT")

    def can_lock() -> bool:
        try:
            with platform.database.transaction(system=True) as session:
                return session.execute(lock, {"id": people.salon.id}).scalar_one() == 1
        except DBAPIError:
            return False

    def hold_it_and_fall_silent() -> None:
        with platform.database.transaction(system=True) as session:
            session.execute(lock, {"id": people.salon.id})
            assert not can_lock()
            eventually(can_lock, seconds=5)
            session.execute(text("SELECT 1"))

    with pytest.raises(DatabaseUnavailable):
        hold_it_and_fall_silent()
