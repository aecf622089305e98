"""The canary: planted once an interval, brought through like any event, and missed when work does not move."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from sqlalchemy import text

from app.config import environment_of
from app.models.deliveries import CANARY_ORG_ID, list_deliveries
from app.queue import QUEUE_NAME
from app.services import canary, caretaker, cleanup, ledger
from app.services.drain import Drain
from app.services.isolation import ROOT
from app.services.platform import Platform
from tests.eventually import eventually

RQ = Path(sys.executable).parent / "rq"
CANARY_SECONDS = 4  # a fifteenth of the usual interval


@pytest.fixture
def build(platform: Platform, own_valkey):
    """More platforms on the same database, each as a process of its kind."""
    built = []

    def make(kind: str = "web", *, redis: bool = False, **changes) -> Platform:
        changes |= {"redis_url": own_valkey.url} if redis else {}
        built.append(Platform(platform.settings.model_copy(update=changes), kind=kind))
        return built[-1]

    yield make
    for one in built:
        one.close()


def rows(platform: Platform, what: str) -> list[tuple]:
    with platform.database.transaction(system=True) as session:
        return [tuple(row) for row in session.execute(text(what)).all()]


def make_older(platform: Platform, seconds: float) -> None:
    """As if all that was planted had been planted, and processed, that much earlier."""
    with platform.database.transaction(system=True) as session:
        session.execute(text("DELETE FROM processed_webhook_events"))
        session.execute(
            text(
                "UPDATE webhook_delivery_log SET event_key = event_key || '-old-' || id,"
                " received_at = received_at - make_interval(secs => :s),"
                " finished_at = finished_at - make_interval(secs => :s)"
            ),
            {"s": seconds},
        )


def deliver(platform: Platform) -> None:
    Drain(platform, threads=2).run()


def test_a_canary_goes_through_intake_and_delivery_like_any_event(platform):
    assert canary.look(platform) == canary.CanaryReport(None, None, None, None, False, False)
    assert canary.tend(platform)
    planted = canary.look(platform)
    assert planted.planted_at
    assert planted.processed_at is None
    assert not planted.missed
    deliver(platform)
    arrived = canary.look(platform)
    assert arrived.by == "web"
    assert 0 <= arrived.age_seconds < 20
    assert not arrived.missed
    assert ledger.check(platform).processed == 1


def test_it_names_the_kind_of_process_that_brought_it_through(platform, build):
    canary.tend(platform)
    deliver(build("worker"))
    assert canary.look(platform).by == "worker"
    ((process,),) = rows(platform, "SELECT process FROM delivery_attempts")
    assert process.startswith("worker:")
    assert process.count(":") == 2


def test_many_processes_plant_one_an_interval(platform, build):
    planted = []
    threads = [
        threading.Thread(target=lambda one: planted.append(canary.tend(one)), args=(build(canary_seconds=3600),))
        for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert sorted(planted) == [False, False, False, False, True]
    assert rows(platform, "SELECT count(*) FROM webhook_delivery_log") == [(1,)]


def test_one_that_does_not_come_through_is_missed_after_two_intervals_and_found_again(platform):
    canary.tend(platform)
    make_older(platform, 119)
    assert not canary.look(platform).missed
    make_older(platform, 2)
    assert canary.look(platform).missed
    deliver(platform)
    assert not canary.look(platform).missed


def test_none_is_missed_after_a_pause_in_which_none_was_planted(platform):
    canary.tend(platform)
    deliver(platform)
    make_older(platform, 7200)
    report = canary.look(platform)
    assert report.age_seconds > 7000
    assert not report.missed
    assert canary.tend(platform)
    assert not canary.look(platform).missed


def test_a_dead_canary_has_not_come_through(platform):
    canary.tend(platform)
    with platform.database.transaction(system=True) as session:
        session.execute(text("UPDATE webhook_delivery_log SET status = 'dead', finished_at = now()"))
    make_older(platform, 121)
    assert canary.look(platform).missed


def test_people_see_none_of_them_unless_they_ask(platform, people):
    canary.tend(platform)
    with platform.database.transaction(system=True) as session:
        assert list_deliveries(session) == []
        assert len(list_deliveries(session, org_id=CANARY_ORG_ID)) == 1


def test_cleanup_takes_them_like_others(platform):
    canary.tend(platform)
    deliver(platform)
    make_older(platform, 8 * 86400)
    cleanup.clean_up(platform)
    assert rows(platform, "SELECT count(*) FROM webhook_delivery_log") == [(0,)]
    assert ledger.check(platform).difference == 0


def test_one_left_by_workers_is_asked_again_at_once_and_the_second_tells_that_they_are_idle(build):
    web, worker = build("web", redis=True), build("worker", redis=True)
    canary.tend(web)
    deliver(web)
    assert not canary.look(web).workers_idle
    assert canary.tend(web)
    assert not canary.tend(web)
    deliver(web)
    assert canary.look(web).workers_idle
    make_older(web, 60)
    assert canary.tend(web)
    deliver(worker)
    assert not canary.look(web).workers_idle
    assert not canary.tend(web)


def test_without_redis_nobody_expects_a_worker(platform):
    for _ in range(3):
        assert canary.tend(platform)
        deliver(platform)
        make_older(platform, 60)
    assert not canary.look(platform).workers_idle


def test_a_worker_that_is_alive_and_does_nothing_is_found_within_two_intervals_and_nothing_waits_for_it(
    build, own_valkey, tmp_path, monkeypatch
):
    monkeypatch.setattr(caretaker, "OVERDUE_SECONDS", 2.0)
    web = build("web", redis=True, canary_seconds=CANARY_SECONDS)
    web.start_web()
    command = [str(RQ), "worker", "--url", own_valkey.url, "--worker-class", "workers.Worker", QUEUE_NAME]
    with (tmp_path / "worker.log").open("w") as log:
        worker = subprocess.Popen(command, cwd=ROOT, env=environment_of(web.settings), stdout=log, stderr=log)

    def after_tending(holds) -> bool:
        canary.tend(web)
        return holds(canary.look(web))

    try:
        eventually(lambda: after_tending(lambda seen: seen.by == "worker" and not seen.workers_idle), seconds=40)
        worker.send_signal(signal.SIGSTOP)
        # The share of two minutes that this interval is of a minute, and what the web process needs to step in.
        eventually(lambda: after_tending(lambda seen: seen.workers_idle), seconds=2 * CANARY_SECONDS + 5, every=0.5)
        eventually(lambda: after_tending(lambda seen: seen.by == "web" and not seen.missed), seconds=15, every=0.5)
        worker.send_signal(signal.SIGCONT)
        eventually(
            lambda: after_tending(lambda seen: seen.by == "worker" and not seen.workers_idle), seconds=30, every=0.5
        )
        assert not canary.look(web).missed
    finally:
        worker.kill()
        worker.wait(timeout=10)
