"""Whether work moves: a job through the queue and a worker and back, and the schedules' next runs."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from app.queue import SCHEDULE_IDS, count_workers, read_schedule, send_probe, take_probe
from app.redis import RedisAway
from app.services.readiness.outcomes import Outcome, failed, fallen_back, passed, warned

if TYPE_CHECKING:
    from app.services.platform import Platform

WAIT_SECONDS = 3.0
POLL_SECONDS = 0.02
OVERDUE_SECONDS = 30.0
START_WORKER = "Start `rq worker --worker-class workers.Worker voicedesk`."
START_SCHEDULER = "Start `python -m workers.scheduler`."
START_REDIS = "See whether Redis runs, at REDIS_URL, and answers within 50 ms."


def queue(platform: Platform) -> Outcome:
    """A marked job goes through Redis and a worker, and comes back."""
    if not platform.redis.configured:
        return warned("REDIS_URL is not set; web processes deliver by themselves", "Set REDIS_URL and start a worker.")
    began = time.monotonic()
    try:
        token = send_probe(platform.redis)
        while time.monotonic() - began < WAIT_SECONDS:
            process = take_probe(platform.redis, token)
            if process:
                return passed(f"a job came back from {process} after {(time.monotonic() - began) * 1000:.0f} ms")
            time.sleep(POLL_SECONDS)
        workers = count_workers(platform.redis)
    except RedisAway:
        return fallen_back(platform, "Redis does not answer; web processes deliver by themselves", START_REDIS)
    told = f"no worker took a job within {WAIT_SECONDS:g} s ({workers} known to Redis); web processes deliver"
    return fallen_back(platform, told, START_WORKER if not workers else "See the workers' logs: they hang or are busy.")


def schedulers(platform: Platform) -> Outcome:
    """Every job of the schedule is registered, with a next run that a living scheduler would not have let pass."""
    if not platform.redis.configured:
        return warned(
            "REDIS_URL is not set; the web processes' sweep does the same", "Set REDIS_URL, start a scheduler."
        )
    try:
        schedule = read_schedule(platform.redis)
    except RedisAway:
        return fallen_back(platform, "Redis does not answer; the web processes' sweep does the same", START_REDIS)
    missing = [name for name in SCHEDULE_IDS if name not in schedule]
    if missing:
        told = f"not registered: {', '.join(missing)}; the web processes' sweep does the same"
        return fallen_back(platform, told, START_SCHEDULER)
    now = datetime.now(UTC)
    late = [name for name, at in schedule.items() if (now - at).total_seconds() > OVERDUE_SECONDS]
    if late:
        told = f"overdue: {', '.join(late)}: no scheduler runs; the web processes' sweep does the same"
        return fallen_back(platform, told, START_SCHEDULER)
    unknown = sorted(set(schedule) - set(SCHEDULE_IDS))
    if unknown:
        return failed(f"registered and not listed: {', '.join(unknown)}", "Restart the scheduler: it is an old one.")
    return passed("; ".join(f"{name} next {schedule[name]:%d %b %H:%M:%S}Z" for name in SCHEDULE_IDS))
