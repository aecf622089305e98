"""Schedulers as real processes: two of them, one that is killed, one that was killed holding the lock."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest
from redis import Redis

from app.config import environment_of
from app.queue import QUEUE_NAME, SCHEDULE_IDS, SCHEDULED_KEY
from tests.conftest import make_settings
from tests.e2e.house import ROOT
from tests.eventually import eventually

LOCK_KEY = "rq:scheduler_lock"
SWEEP, CLEANUP, RECONCILE = SCHEDULE_IDS


@pytest.fixture
def redis(own_valkey) -> Iterator[Redis]:
    with Redis.from_url(own_valkey.url) as connection:
        yield connection


@pytest.fixture
def start(own_valkey, database_urls) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Start a scheduler process; all are ended afterwards."""
    running: list[subprocess.Popen[bytes]] = []
    environment = environment_of(make_settings(database_urls, redis_url=own_valkey.url))

    def begin() -> subprocess.Popen[bytes]:
        words = [sys.executable, "-m", "workers.scheduler"]
        process = subprocess.Popen(words, env=environment, cwd=ROOT, stderr=subprocess.DEVNULL)
        running.append(process)
        return process

    yield begin
    for process in running:
        process.kill()
        process.wait(timeout=10)


def swept_after(redis: Redis, moment: float) -> bool:
    """Whether the sweep was given a date by a scheduler that was alive after this moment."""
    at = redis.zscore(SCHEDULED_KEY, SWEEP)
    return at is not None and at > moment + 5


def test_two_schedulers_hold_each_entry_once_and_one_goes_on_when_the_other_is_killed(start, redis):
    first, _second = start(), start()
    eventually(lambda: swept_after(redis, time.time() - 4), seconds=30)
    first.kill()
    killed = time.time()
    eventually(lambda: swept_after(redis, killed), seconds=40)
    assert set(redis.zrange(SCHEDULED_KEY, 0, -1)) == {SWEEP.encode(), CLEANUP.encode(), RECONCILE.encode()}
    queued = redis.lrange(f"rq:queue:{QUEUE_NAME}", 0, -1)
    assert sorted(queued) == [RECONCILE.encode(), SWEEP.encode()]  # what is due at once, each once


def test_the_lock_of_one_that_was_killed_with_it_ends_by_itself(start, redis):
    redis.set(LOCK_KEY, time.time(), ex=3)  # as rq-scheduler takes it, with less to wait for
    began = time.time()
    start()
    eventually(lambda: redis.zscore(SCHEDULED_KEY, CLEANUP) is not None, seconds=30)
    assert time.time() - began >= 2.5


def test_a_scheduler_that_was_down_over_night_makes_up_for_it_once(start, redis):
    first = start()
    eventually(lambda: redis.zscore(SCHEDULED_KEY, CLEANUP) is not None, seconds=30)
    night = redis.zscore(SCHEDULED_KEY, CLEANUP)
    first.kill()
    first.wait(timeout=10)
    redis.delete(LOCK_KEY)
    redis.zadd(SCHEDULED_KEY, {CLEANUP: night - 2 * 86_400})
    start()
    queue = f"rq:queue:{QUEUE_NAME}"
    eventually(lambda: CLEANUP.encode() in redis.lrange(queue, 0, -1), seconds=30)
    eventually(lambda: redis.zscore(SCHEDULED_KEY, CLEANUP) == night, seconds=10)
    assert redis.lrange(queue, 0, -1).count(CLEANUP.encode()) == 1
