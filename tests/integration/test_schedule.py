"""The schedule in rq-scheduler: exactly the list, whatever happened to Redis, and never piled up."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis import Redis
from rq import Queue, SimpleWorker

from app.queue import BELL_KEY, ENOUGH_JOBS, QUEUE_NAME, Bell
from app.redis import RedisLink
from workers import schedule
from workers.schedule import Entry, OnceScheduler, register

JOB = "time.time"


@pytest.fixture
def redis(own_valkey) -> Iterator[Redis]:
    """An empty Redis."""
    with Redis.from_url(own_valkey.url) as connection:
        yield connection


@pytest.fixture
def scheduler(redis: Redis) -> OnceScheduler:
    return OnceScheduler(queue_name=QUEUE_NAME, connection=redis, interval=1)


def entries(scheduler: OnceScheduler) -> dict[str, tuple]:
    return {job.id: (job.func_name, job.meta["interval"], job.timeout) for job in scheduler.get_jobs()}


def listed() -> dict[str, tuple]:
    return {entry.id: (entry.job, entry.every_seconds, entry.timeout_seconds) for entry in schedule.SCHEDULE}


def test_registering_again_changes_nothing_and_an_emptied_redis_gets_the_list_back(scheduler, redis):
    register(scheduler)
    assert entries(scheduler) == listed()
    dates = redis.zrange(scheduler.scheduled_jobs_key, 0, -1, withscores=True)
    register(scheduler)
    assert redis.zrange(scheduler.scheduled_jobs_key, 0, -1, withscores=True) == dates
    redis.flushall()
    register(scheduler)
    assert entries(scheduler) == listed()


def test_a_changed_entry_is_replaced_and_one_that_is_no_longer_listed_goes(scheduler, monkeypatch):
    register(scheduler)
    changed = Entry("voicedesk-sweep", "workers.jobs.sweep", 7, 99)
    monkeypatch.setattr(schedule, "SCHEDULE", (changed, Entry("voicedesk-new", JOB, 3, 10)))
    register(scheduler)
    assert entries(scheduler) == listed()


def test_an_entry_outlives_its_run_and_keeps_its_date(scheduler, redis, monkeypatch):
    monkeypatch.setattr(schedule, "SCHEDULE", (Entry("voicedesk-rare", JOB, 600, 10),))
    register(scheduler)
    scheduler.enqueue_jobs()
    SimpleWorker([Queue(QUEUE_NAME, connection=redis)], connection=redis).work(burst=True)
    assert redis.ttl("rq:job:voicedesk-rare") == -1
    register(scheduler)
    assert not list(scheduler.get_jobs_to_queue())


def test_without_a_worker_an_entry_waits_in_the_queue_once(scheduler, redis, monkeypatch):
    monkeypatch.setattr(schedule, "SCHEDULE", (Entry("voicedesk-often", JOB, 1, 10),))
    register(scheduler)
    for _ in range(5):
        redis.zadd(scheduler.scheduled_jobs_key, {"voicedesk-often": 0})
        scheduler.enqueue_jobs()
    assert redis.llen(f"rq:queue:{QUEUE_NAME}") == 1
    assert list(scheduler.get_jobs_to_queue()) == []


def test_without_a_worker_bells_do_not_pile_up(own_valkey, redis):
    bell = Bell(RedisLink(own_valkey.url))
    for _ in range(ENOUGH_JOBS + 10):
        redis.delete(BELL_KEY)
        assert bell.ring_now()
    assert redis.llen(f"rq:queue:{QUEUE_NAME}") == ENOUGH_JOBS


def test_a_ring_wanted_just_before_the_stop_is_still_rung(own_valkey, redis):
    bell = Bell(RedisLink(own_valkey.url))
    bell.ring()
    bell.stop()
    assert redis.llen(f"rq:queue:{QUEUE_NAME}") == 1
