"""The sync fallback and the sweep: a web process that delivers by itself, one sweeper of many."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app.errors import CircuitOpen
from app.models import attempts
from app.services import handlers
from app.services.drain import Drain
from app.services.platform import Platform
from tests.eventually import eventually
from tests.probes import put_probes


@pytest.fixture
def handle(monkeypatch):
    def register(function):
        monkeypatch.setitem(handlers._HANDLERS, ("test", "probe"), function)

    return register


def rows(platform: Platform, what: str) -> list[tuple]:
    with platform.database.transaction(system=True) as session:
        return [tuple(row) for row in session.execute(text(what)).all()]


def test_without_redis_a_ring_is_answered_by_this_process_and_nobody_waits_for_a_sweep(platform, people, handle):
    done = threading.Event()
    handle(lambda _: done.set())
    platform.bell.on_silence = platform.caretaker.nudge
    put_probes(platform, people.salon.id, "a")
    platform.bell.ring()
    assert done.wait(3)
    eventually(lambda: rows(platform, "SELECT count(*) FROM lanes") == [(0,)])


def test_of_two_caretakers_one_sweeps_and_the_other_takes_over_at_once_when_it_stops(platform, people, handle):
    handle(lambda _: None)
    other = Platform(platform.settings)
    other.caretaker._name = "another:1"
    platform.caretaker.sweep()
    put_probes(platform, people.salon.id, "a")
    other.caretaker.sweep()
    assert rows(platform, "SELECT status FROM webhook_delivery_log") == [("received",)]
    platform.caretaker.stop()
    other.caretaker.sweep()
    assert rows(platform, "SELECT status FROM webhook_delivery_log") == [("processed",)]
    other.close()


def test_a_closed_platform_does_not_begin_to_deliver_again(platform):
    platform.start_web()
    platform.bell.ring()
    platform.close()
    platform.bell.ring()
    assert not platform.caretaker._thread.is_alive()


def test_waking_what_waits_and_intake_into_the_same_lanes_never_deadlock(platform, people, handle):
    def handler(_) -> None:
        raise CircuitOpen("twilio_sms", retry_after=timedelta(hours=1))

    handle(handler)
    names = [f"lane-{number}" for number in range(40)]
    put_probes(platform, people.salon.id, *reversed(names))
    Drain(platform, threads=4).run()
    failures = []

    def repeat(action) -> None:
        try:
            for _ in range(15):
                action()
        except DBAPIError as error:
            failures.append(error)

    def wake() -> None:
        with platform.database.transaction(system=True) as session:
            attempts.wake_waiting(session, "twilio_sms", per_second=10)
        with platform.database.transaction(system=True) as session:
            session.execute(text("UPDATE webhook_delivery_log SET waiting_on = 'twilio_sms' WHERE attempts = 0"))

    threads = [
        threading.Thread(target=repeat, args=(action,))
        for action in (wake, lambda: put_probes(platform, people.salon.id, *names))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert failures == []
