"""Told to stop, a process finishes or gives back what it holds, within a bound; told twice, it goes at once."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import psutil
import pytest
import requests
from sqlalchemy import text

from app.services.messages import plan_text
from sandbox.children import Child, await_gone, family_of, kill_all, start_child
from tests.e2e.house import BIN, ROOT, House
from tests.eventually import eventually
from tests.people import Business, open_business
from tests.probes import put_probes

HELD = "SELECT count(*) FROM lanes WHERE token IS NOT NULL"
RUNNING = "SELECT count(*) FROM delivery_attempts WHERE ended_at IS NULL"
# The web process delivers too when a busy machine keeps Redis from answering it in time: what a worker left is meant.
LEFT_HELD = (
    f"{HELD} AND NOT EXISTS (SELECT FROM delivery_attempts a"
    " WHERE a.lane_token = lanes.token AND a.process LIKE 'web:%')"
)
LEFT_RUNNING = f"{RUNNING} AND process NOT LIKE 'web:%'"
STUCK_RUNNING = (  # and not a canary's attempt, which ends
    "SELECT count(*) FROM delivery_attempts a JOIN webhook_delivery_log d ON d.id = a.delivery_id"
    " WHERE a.ended_at IS NULL AND d.provider = 'test'"
)
UNFINISHED = "SELECT count(*) FROM webhook_delivery_log WHERE status IN ('received', 'processing', 'retrying')"
TEXTS = 60
# The product's worker and web application with one handler more, which does not end.
STUCK = """
import time
from app.services import handlers
from wsgi import app
import workers.worker
from workers import Worker
workers.worker.GRACE_SECONDS = 2.0
handlers._HANDLERS[("test", "probe")] = lambda work: time.sleep(60)
"""
Start = Callable[..., Child]


@pytest.fixture
def houses(tmp_path, world) -> Iterator[Callable[..., House]]:
    """Make a house whose leases are long: who leaves one behind is found out."""
    made: list[House] = []

    def build(**options) -> House:
        made.append(House(tmp_path, world, lease_seconds=60, **options))
        return made[-1]

    yield build
    for house in made:
        house.close()


@pytest.fixture
def start(tmp_path) -> Iterator[Start]:
    """Start a process of the product that nobody restarts; whatever is left of it is killed at the end."""
    (tmp_path / "stuck.py").write_text(STUCK)
    started: list[Child] = []

    def begin(house: House, *words: object) -> Child:
        environment = {**os.environ, **house.environment, "PYTHONPATH": f"{ROOT}:{tmp_path}", "WEB_CONCURRENCY": "1"}
        log_path = tmp_path / f"process-{len(started)}.log"
        started.append(start_child([str(word) for word in words], log_path=log_path, env=environment, cwd=ROOT))
        return started[-1]

    yield begin
    for process in started:
        kill_all(family_of(process.pid))
        process.wait(timeout=10)


def worker(house: House, kind: str = "workers.Worker") -> tuple[object, ...]:
    assert house.valkey is not None
    return (BIN / "rq", "worker", "--url", house.valkey.url, "--worker-class", kind, "voicedesk")


def web(application: str = "wsgi:app") -> tuple[object, ...]:
    return (BIN / "gunicorn", "-c", "gunicorn.conf.py", application)


def isolated_of(process: Child) -> list[psutil.Process]:
    """The process that forks for suspects, and its forks that have not ended."""
    found = []
    for one in family_of(process.pid):
        with contextlib.suppress(psutil.NoSuchProcess):  # a zombie has no command any more
            if "deliver-isolated" in one.cmdline():
                found.append(one)
    return found


def told_twice(process: Child) -> float:
    """SIGTERM, and again when that is no echo of the first; how long the process then took to end."""
    process.send_signal(signal.SIGTERM)
    time.sleep(1.3)
    assert process.poll() is None
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=10)
    return time.monotonic() - began


def plan_texts(house: House, salon: Business, number: int) -> None:
    with house.platform.database.transaction(salon.id) as session:
        for index in range(number):
            plan_text(
                session,
                salon.id,
                to=f"+49151{index:08d}",
                body="hello",
                channel="sms",
                idempotency_key=f"k{index}",
                purpose="test",
            )


@pytest.mark.timeout(180)
def test_a_worker_stopped_under_load_leaves_no_lease_and_the_next_does_the_rest_once(houses, start, world):
    house = houses()
    salon = open_business(house.platform, world, "Salon", "+4930111110001")
    house.start_web()
    world.latency(0.4)
    plan_texts(house, salon, TEXTS)
    taken = []
    stopping = threading.Event()

    def send() -> None:
        headers = {"X-Vapi-Secret": salon.vapi_secret}
        url = f"{house.base_url}/webhooks/vapi/{salon.vapi_token}"
        while not stopping.is_set():
            message = {"type": "status-update", "status": "in-progress", "call": {"id": f"c{len(taken)}"}}
            taken.append(requests.post(url, json={"message": message}, headers=headers, timeout=10).status_code)

    sender = threading.Thread(target=send)
    first = start(house, *worker(house))
    sender.start()
    try:
        eventually(lambda: house.query(RUNNING)[0][0] >= 4, seconds=40)
        first.send_signal(signal.SIGTERM)
        began = time.monotonic()
        assert first.wait(timeout=20) == 0
        assert time.monotonic() - began < 8
        eventually(lambda: house.query(LEFT_HELD) == [(0,)], seconds=1)  # a claim of the web's has its attempts at once
        assert house.query(LEFT_RUNNING) == [(0,)]
        assert house.query(UNFINISHED)[0][0] > 10
        start(house, *worker(house))
        eventually(lambda: len(world.messages()) >= TEXTS, seconds=40)
    finally:
        stopping.set()
        sender.join(timeout=15)
        world.latency(0.0)
    eventually(lambda: house.query(UNFINISHED) == [(0,)], seconds=30)
    assert set(taken) == {200}
    assert len(world.messages()) == TEXTS
    assert house.query("SELECT max(attempts) FROM webhook_delivery_log") == [(1,)]
    assert house.query("SELECT count(*) FROM calls") == [(len(taken),)]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("signals", [1, 2])
def test_a_worker_whose_handlers_do_not_end_gives_their_lanes_back_and_leaves(houses, start, world, signals):
    house = houses()
    salon = open_business(house.platform, world, "Salon", "+4930111110001")
    put_probes(house.platform, salon.id, *"abc")
    stuck = start(house, *worker(house, "stuck.Worker"))
    eventually(lambda: house.query(STUCK_RUNNING) == [(3,)], seconds=40)
    if signals == 2:
        assert told_twice(stuck) < 1.5
    else:
        stuck.send_signal(signal.SIGTERM)
        began = time.monotonic()
        stuck.wait(timeout=10)
        assert 1.5 < time.monotonic() - began < 4
    assert stuck.returncode == 1
    assert house.query(HELD) == [(0,)]
    assert house.query("SELECT count(*) FROM lanes WHERE due_at <= now() AND lane_key IN ('a', 'b', 'c')") == [(3,)]
    start(house, *worker(house))  # which knows no such handler, and says so of each
    eventually(
        lambda: house.query("SELECT status FROM webhook_delivery_log WHERE provider = 'test'") == [("skipped",)] * 3,
        seconds=40,
    )


@pytest.mark.timeout(120)
def test_a_worker_that_leaves_takes_along_the_process_it_isolated_an_attempt_in(houses, start, world):
    house = houses()
    salon = open_business(house.platform, world, "Salon", "+4930111110001")
    plan_texts(house, salon, 1)
    with house.platform.database.transaction(system=True) as session:
        session.execute(text("UPDATE webhook_delivery_log SET running_since = now() WHERE provider = 'voicedesk'"))
    leaving = start(house, *worker(house))
    eventually(lambda: isolated_of(leaving), seconds=40)
    isolated = isolated_of(leaving)
    for alone in isolated:
        alone.suspend()  # it would end by itself
    assert told_twice(leaving) < 2.5
    assert await_gone(isolated, seconds=1)
    assert house.query(HELD) == [(0,)]


@pytest.mark.timeout(120)
def test_a_worker_leaves_at_once_also_when_the_database_hangs(houses, start, world):
    house = houses()
    salon = open_business(house.platform, world, "Salon", "+4930111110001")
    put_probes(house.platform, salon.id, "a")
    stuck = start(house, *worker(house, "stuck.Worker"))
    eventually(lambda: house.query(STUCK_RUNNING) == [(1,)], seconds=40)
    house.postgres.freeze()
    try:
        assert told_twice(stuck) < 2.5
    finally:
        house.postgres.thaw()
    assert stuck.returncode == 1


@pytest.mark.timeout(120)
def test_a_web_process_told_to_stop_answers_who_waits_and_finishes_what_it_delivers(houses, start, world):
    house = houses(redis=False)
    salon = open_business(house.platform, world, "Salon", "+4930111110001")
    serving = start(house, *web())
    house.await_web()
    world.latency(1.5)
    plan_texts(house, salon, TEXTS)
    answers = []

    def ask() -> None:
        arguments = {"start": "2031-03-03T09:00:00+01:00", "end": "2031-03-03T12:00:00+01:00"}
        answers.append(salon.tool(house.client, "check_availability", call_id="c1", **arguments))

    eventually(lambda: house.query(RUNNING)[0][0] >= 2, seconds=40)
    asking = threading.Thread(target=ask)
    asking.start()
    time.sleep(0.4)  # the question must have arrived, and its answer must not
    serving.send_signal(signal.SIGTERM)
    began = time.monotonic()
    assert serving.wait(timeout=25) == 0
    assert time.monotonic() - began < 20
    asking.join(timeout=10)
    assert len(answers) == 1
    world.latency(0.0)
    assert house.query(HELD) == [(0,)]
    assert house.query(RUNNING) == [(0,)]
    assert house.query(UNFINISHED)[0][0] > 10
    start(house, *web())
    eventually(lambda: house.query(UNFINISHED) == [(0,)], seconds=60)
    assert len(world.messages()) == TEXTS


@pytest.mark.timeout(120)
def test_a_web_process_told_twice_gives_back_what_it_delivers_and_is_gone(houses, start, world):
    house = houses(redis=False)
    salon = open_business(house.platform, world, "Salon", "+4930111110001")
    serving = start(house, *web("stuck:app"))
    house.await_web()
    put_probes(house.platform, salon.id, *"abc")
    eventually(lambda: house.query(STUCK_RUNNING) == [(3,)], seconds=40)
    family = family_of(serving.pid)
    assert len(family) == 2
    assert told_twice(serving) < 4
    assert await_gone(family, seconds=1)
    assert house.query(HELD) == [(0,)]


@pytest.mark.timeout(120)
def test_the_scheduler_told_to_stop_lets_go_of_its_lock_and_told_twice_waits_for_no_redis(houses, start, world):
    house = houses()
    command = (sys.executable, "-m", "workers.scheduler")
    assert house.valkey is not None

    def is_locked() -> bool:
        lock = house.platform.redis.use(lambda redis: redis.exists("rq:scheduler:scheduler_lock", "rq:scheduler_lock"))
        return bool(lock)

    def has_registered() -> bool:
        return bool(house.platform.redis.use(lambda redis: redis.zcard("rq:scheduler:scheduled_jobs")))

    first = start(house, *command)
    eventually(has_registered, seconds=30)
    first.send_signal(signal.SIGTERM)
    assert first.wait(timeout=5) == 0
    assert not is_locked()
    second = start(house, *command)
    eventually(is_locked, seconds=30, every=0.01)
    house.valkey.freeze()
    try:
        time.sleep(1.5)  # its next round, a second later at most, stands before the frozen Redis
        assert told_twice(second) < 1
    finally:
        house.valkey.thaw()
    assert second.returncode == -signal.SIGTERM
    assert isinstance(second, subprocess.Popen)
