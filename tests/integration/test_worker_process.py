"""Real worker processes: told to stop in the middle, with Redis frozen under them, and RQ's own kind."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis
from sqlalchemy import text

from app.config import environment_of
from app.queue import QUEUE_NAME, Bell
from app.redis import RedisLink
from app.services.isolation import ROOT
from app.services.platform import Platform
from tests.eventually import eventually
from tests.probes import put_probes

RQ = Path(sys.executable).parent / "rq"
# The product's worker with one handler more, which takes its time.
SLOW = """
import time
from app.services import handlers
from workers import Worker
handlers._HANDLERS[("test", "probe")] = lambda work: time.sleep(1.5)
"""
ATTEMPTS = "delivery_attempts a JOIN webhook_delivery_log d ON d.id = a.delivery_id"  # also canaries' are there
Start = Callable[..., subprocess.Popen]


@pytest.fixture
def start(platform: Platform, own_valkey, tmp_path: Path) -> Iterator[Start]:
    """Start ``rq worker`` with more arguments; all are killed at the end."""
    (tmp_path / "slow_worker.py").write_text(SLOW)
    settings = platform.settings.model_copy(update={"redis_url": own_valkey.url, "worker_threads": 4})
    environment = environment_of(settings) | {"PYTHONPATH": f"{ROOT}:{tmp_path}"}
    started: list[subprocess.Popen] = []

    def begin(*words: str) -> subprocess.Popen:
        command = [str(RQ), "worker", "--url", own_valkey.url, *words, QUEUE_NAME]
        with (tmp_path / "worker.log").open("a") as log:
            started.append(subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait(timeout=10)


def count(platform: Platform, what: str) -> int:
    with platform.database.transaction(system=True) as session:
        return session.execute(text(f"SELECT count(*) FROM {what}")).scalar_one()


def test_a_worker_told_to_stop_finishes_what_it_began_leaves_no_lease_and_rings_for_the_rest(
    platform, people, start, own_valkey
):
    put_probes(platform, people.salon.id, *"abcdefgh")
    worker = start("--worker-class", "slow_worker.Worker")
    running = f"{ATTEMPTS} WHERE d.provider = 'test' AND a.ended_at IS NULL"
    eventually(lambda: count(platform, running) == 3, seconds=20)
    worker.send_signal(signal.SIGTERM)
    began = time.monotonic()
    assert worker.wait(timeout=10) == 0
    assert time.monotonic() - began < 5
    assert count(platform, running) == 0
    left = count(platform, "webhook_delivery_log WHERE status = 'received' AND provider = 'test'")
    assert 0 < left < 8
    probes = "lanes WHERE lane_key IN ('a', 'b', 'c', 'd', 'e', 'f', 'g', 'h')"  # calendars have lanes too
    assert count(platform, f"{probes} AND due_at <= now()") == left == count(platform, probes)
    with Redis.from_url(own_valkey.url) as redis:
        assert redis.llen(f"rq:queue:{QUEUE_NAME}") == 1


def test_a_worker_whose_redis_freezes_under_a_job_ends_the_job_and_goes_on_afterwards(
    platform, people, start, own_valkey
):
    put_probes(platform, people.salon.id, "a")
    worker = start("--worker-class", "slow_worker.Worker")
    eventually(lambda: count(platform, f"{ATTEMPTS} WHERE d.provider = 'test'") == 1, seconds=20)
    own_valkey.freeze()
    try:
        eventually(
            lambda: count(platform, "webhook_delivery_log WHERE status = 'processed' AND provider = 'test'") == 1
        )
        time.sleep(8)
    finally:
        own_valkey.thaw()
    put_probes(platform, people.salon.id, "b")
    bell = Bell(RedisLink(own_valkey.url))
    eventually(
        lambda: (
            bell.ring_now()
            and count(platform, "webhook_delivery_log WHERE status = 'processed' AND provider = 'test'") == 2
        ),
        seconds=20,
    )
    assert worker.poll() is None


def test_rqs_own_worker_which_forks_for_each_job_delivers_too(platform, people, start, own_valkey):
    start()
    for key in "ab":
        put_probes(platform, people.salon.id, key)
        assert Bell(RedisLink(own_valkey.url)).ring_now()
        eventually(lambda: count(platform, "lanes") == 0, seconds=30)
    assert count(platform, "webhook_delivery_log WHERE status = 'skipped'") == 2
