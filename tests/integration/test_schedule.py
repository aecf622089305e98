"""The schedule in rq-scheduler: exactly the list, whatever happened to Redis, and never piled up."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from redis import Redis
from rq import Queue, SimpleWorker

from app.queue import BELL_KEY, ENOUGH_JOBS, QUEUE_NAME, Bell
from app.redis import RedisLink
from app.services.nightly import next_night
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
    return {job.id: (job.func_name, job.meta.get("interval"), job.timeout) for job in scheduler.get_jobs()}


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


def test_the_nightly_entry_waits_for_four_in_the_morning_utc_wherever_the_machine_is(scheduler, monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        register(scheduler)
        (date,) = [at for job, at in scheduler.get_jobs(with_times=True) if job.id == "voicedesk-cleanup"]
    finally:
        monkeypatch.undo()
        time.tzset()
    assert date.replace(tzinfo=UTC) == next_night(datetime.now(UTC))


@pytest.mark.parametrize(
    ("now", "night"),
    [
        ("2026-03-29T03:59:59+00:00", "2026-03-29T04:00:00+00:00"),
        ("2026-03-29T04:00:00+00:00", "2026-03-30T04:00:00+00:00"),
        ("2026-12-31T23:00:00-05:00", "2027-01-02T04:00:00+00:00"),
    ],
)
def test_the_next_night_is_the_next_four_o_clock_utc(now, night):
    assert next_night(datetime.fromisoformat(now)) == datetime.fromisoformat(night)


def test_a_missed_night_is_made_up_for_once_and_does_not_move_the_next_one(scheduler, redis, monkeypatch):
    monkeypatch.setattr(schedule, "SCHEDULE", (Entry("voicedesk-night", JOB, None, 10),))
    register(scheduler)
    three_days_ago = (datetime.now(UTC) - timedelta(days=3)).timestamp()
    redis.zadd(scheduler.scheduled_jobs_key, {"voicedesk-night": three_days_ago})
    register(scheduler)
    scheduler.enqueue_jobs()
    scheduler.enqueue_jobs()
    assert redis.lrange(f"rq:queue:{QUEUE_NAME}", 0, -1) == [b"voicedesk-night"]
    assert redis.zscore(scheduler.scheduled_jobs_key, "voicedesk-night") == next_night(datetime.now(UTC)).timestamp()


def test_a_schedule_of_before_that_has_no_time_of_day_is_replaced(scheduler, monkeypatch):
    monkeypatch.setattr(schedule, "SCHEDULE", (Entry("voicedesk-cleanup", JOB, 600, 10),))
    register(scheduler)
    monkeypatch.undo()
    register(scheduler)
    assert entries(scheduler) == listed()


def test_an_entry_dated_before_this_machines_clock_was_set_back_is_due_and_the_nightly_one_keeps_its_date(
    scheduler, redis
):
    register(scheduler)
    ahead = time.time() + 3600
    night = redis.zscore(scheduler.scheduled_jobs_key, schedule.CLEANUP)
    redis.zadd(scheduler.scheduled_jobs_key, {schedule.SWEEP: ahead})
    register(scheduler)
    assert redis.zscore(scheduler.scheduled_jobs_key, schedule.SWEEP) <= time.time()
    assert redis.zscore(scheduler.scheduled_jobs_key, schedule.CLEANUP) == night
