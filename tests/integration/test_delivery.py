"""The inbox: stored once, delivered in order, retried, buried, fenced, and shared out fairly."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from app.errors import CircuitOpen, PermanentFailure, ProviderUnavailable, TemporaryFailure
from app.integrations.breaker import protected
from app.models import attempts, lanes
from app.models.inbox import NewDelivery, insert_webhooks
from app.queue import BELL_KEY, Bell
from app.redis import RedisLink
from app.services import handlers
from app.services.delivery import Skip, Work, deliver_lane
from app.services.drain import Drain
from app.services.platform import Platform
from tests.eventually import eventually


@pytest.fixture
def handle(monkeypatch):
    """Register a handler for events of type ``probe``; returns what it was called with."""

    def register(function):
        monkeypatch.setitem(handlers._HANDLERS, ("test", "probe"), function)

    return register


def put(platform: Platform, org_id: UUID, *keys: str, lane: str = "lane") -> None:
    integration_id = uuid4()
    events = [
        NewDelivery(
            org_id=org_id,
            integration_id=integration_id,
            provider="test",
            type="probe",
            event_key=key,
            lane_key=lane,
            payload={"key": key},
        )
        for key in keys
    ]
    with platform.database.intake() as session:
        insert_webhooks(session, events)


def rows(platform: Platform, what: str) -> list:
    with platform.database.transaction(system=True) as session:
        return [tuple(row) for row in session.execute(text(what)).all()]


def drain_until(platform: Platform, done, *, seconds: float = 15) -> None:
    drain = Drain(platform, threads=4)

    def step() -> bool:
        drain.run()
        return done()

    eventually(step, seconds=seconds)


def statuses(platform: Platform) -> list[str]:
    return [row[0] for row in rows(platform, "SELECT status FROM webhook_delivery_log ORDER BY id")]


def test_events_of_one_lane_stay_in_order_through_a_failed_first_attempt(platform, people, handle):
    seen = []

    def handler(work: Work) -> None:
        seen.append((work.delivery.event_key, work.delivery.attempts))
        if work.delivery.event_key == "b" and work.delivery.attempts == 0:
            raise TemporaryFailure("not now")

    handle(handler)
    put(platform, people.salon.id, "a", "b", "c", "d", "e", "f", "g")
    drain_until(platform, lambda: statuses(platform) == ["processed"] * 7)
    assert [key for key, _ in seen] == ["a", "b", "b", "c", "d", "e", "f", "g"]
    assert rows(platform, "SELECT count(*) FROM lanes") == [(0,)]


def test_different_lanes_run_side_by_side(platform, people, handle):
    together = threading.Barrier(3, timeout=10)
    handle(lambda work: (together.wait(), None)[1])
    for lane in "xyz":
        put(platform, people.salon.id, f"event-{lane}", lane=lane)
    Drain(platform, threads=4).run()
    assert statuses(platform) == ["processed"] * 3


def test_each_attempt_is_recorded_with_its_duration_and_its_error_code_and_no_text_of_the_error(
    platform, people, handle
):
    def handler(work: Work) -> None:
        if work.delivery.attempts == 0:
            raise ValueError("+4915155512345 said something private")

    handle(handler)
    put(platform, people.salon.id, "a")
    drain_until(platform, lambda: statuses(platform) == ["processed"])
    log = rows(
        platform, "SELECT number, outcome, error_code, error, duration_ms >= 0 FROM delivery_attempts ORDER BY id"
    )
    assert log == [
        (1, "retry", "bug:ValueError", "the handler failed; see the log", True),
        (2, "processed", None, None, True),
    ]


def test_a_permanent_failure_is_dead_at_once_and_lets_the_lane_go_on(platform, people, handle):
    def handler(work: Work) -> Skip | None:
        if work.delivery.event_key == "bad":
            raise PermanentFailure("a bad number", code="bad_number")
        return Skip("nothing to do")

    handle(handler)
    put(platform, people.salon.id, "bad", "good")
    Drain(platform, threads=2).run()
    assert rows(platform, "SELECT status, error_code, note FROM webhook_delivery_log ORDER BY id") == [
        ("dead", "bad_number", None),
        ("skipped", None, "nothing to do"),
    ]


def test_after_the_last_planned_retry_an_event_is_dead(platform, people, handle):
    def handler(_: Work) -> None:
        raise TemporaryFailure("never")

    handle(handler)
    put(platform, people.salon.id, "a")
    with platform.database.transaction(system=True) as session:
        session.execute(text("UPDATE webhook_delivery_log SET attempts = 8"))
    Drain(platform, threads=1).run()
    assert statuses(platform) == ["dead"]


def test_what_failed_before_its_circuit_opened_is_woken_too_when_it_closes(platform, people, handle):
    away = [True]

    @protected("vapi")
    def ask() -> None:
        if away:
            raise ProviderUnavailable("away")

    handle(lambda _: ask())
    for lane in ("a", "b", "c"):
        put(platform, people.salon.id, lane, lane=lane)
    Drain(platform, threads=1).run()  # three failures in a row: it opens
    assert {row[0] for row in rows(platform, "SELECT waiting_on FROM webhook_delivery_log")} == {"vapi"}
    with platform.database.transaction(system=True) as session:
        session.execute(text("UPDATE webhook_delivery_log SET next_attempt_at = now() + interval '1 hour'"))
        session.execute(text("UPDATE lanes SET due_at = now() + interval '1 hour'"))
    away.clear()
    put(platform, people.salon.id, "probe", lane="probe")
    drain_until(platform, lambda: statuses(platform) == ["processed"] * 4)


def test_waiting_for_an_open_circuit_costs_no_attempt_and_ends_when_it_closes(platform, people, handle):
    open_until = [True]

    def handler(_: Work) -> None:
        if open_until[0]:
            raise CircuitOpen("twilio_sms", retry_after=timedelta(hours=1))

    handle(handler)
    put(platform, people.salon.id, "a")
    Drain(platform, threads=1).run()
    waiting = "SELECT status, attempts, waiting_on FROM webhook_delivery_log"
    assert rows(platform, waiting) == [("retrying", 0, "twilio_sms")]
    open_until[0] = False
    with platform.database.transaction(system=True) as session:
        assert attempts.wake_waiting(session, "twilio_sms", per_second=10) == 1
    drain_until(platform, lambda: rows(platform, waiting) == [("processed", 1, None)])


def test_a_head_that_waits_too_long_is_set_aside_and_those_behind_it_go_on(platform, people, handle):
    def handler(work: Work) -> None:
        if work.delivery.event_key == "slow":
            raise TemporaryFailure("later")

    handle(handler)
    put(platform, people.salon.id, "slow", "next")
    with platform.database.transaction(system=True) as session:
        session.execute(
            text("UPDATE webhook_delivery_log SET held_since = now() - interval '10 minutes' WHERE event_key = 'slow'")
        )
    Drain(platform, threads=1).run()
    found = rows(
        platform,
        "SELECT status, set_aside_at IS NOT NULL, lane_key LIKE 'lane:aside:%' FROM webhook_delivery_log ORDER BY id",
    )
    assert found == [("retrying", True, True), ("processed", False, False)]


def test_a_worker_that_lost_its_lease_does_not_overwrite_what_the_next_one_wrote(platform, people, handle):
    handle(lambda _: None)
    put(platform, people.salon.id, "a")

    def claim():
        with platform.database.transaction(system=True) as session:
            return lanes.claim_lanes(
                session, after=lanes.FIRST_ORG, most=1, per_org=1, lease_seconds=30, full=[]
            ).lanes[0]

    late = claim()
    with platform.database.transaction(system=True) as session:
        session.execute(text("UPDATE lanes SET due_at = now() - interval '1 second'"))
    current = claim()
    assert current.token > late.token
    deliver_lane(platform, late)
    assert statuses(platform) == ["received"]
    deliver_lane(platform, current)
    assert statuses(platform) == ["processed"]


def test_an_expired_lease_is_simply_due_again_and_the_lost_attempt_counts_as_a_crash(platform, people, handle):
    handle(lambda _: None)
    put(platform, people.salon.id, "a")
    with platform.database.transaction(system=True) as session:
        lane = lanes.claim_lanes(session, after=lanes.FIRST_ORG, most=1, per_org=1, lease_seconds=30, full=[]).lanes[0]
        attempts.begin(
            session,
            org_id=lane.org_id,
            lane_key="lane",
            token=lane.token,
            delivery_id=lane.deliveries[0].id,
            process="p",
        )
    with platform.database.transaction(system=True) as session:
        session.execute(text("UPDATE lanes SET due_at = now()"))
        session.execute(text("UPDATE webhook_delivery_log SET crashes = 4"))
    Drain(platform, threads=1).run()
    assert rows(platform, "SELECT status, error_code FROM webhook_delivery_log") == [("dead", "crashed")]


def test_an_event_that_commits_while_its_lane_is_completed_is_not_forgotten(platform, people, handle):
    handle(lambda _: None)
    stop = threading.Event()
    drain = Drain(platform, threads=2)
    worker = threading.Thread(target=lambda: [drain.run() or time.sleep(0.001) for _ in iter(stop.is_set, True)])
    worker.start()
    for number in range(150):
        put(platform, people.salon.id, f"e{number}", lane="hot")
    eventually(lambda: statuses(platform) == ["processed"] * 150, seconds=20)
    stop.set()
    worker.join(timeout=10)
    assert rows(platform, "SELECT count(*) FROM lanes") == [(0,)]


def test_an_organization_with_a_long_backlog_delays_anothers_next_event_by_less_than_a_second(platform, people, handle):
    done = {}

    def handler(work: Work) -> None:
        time.sleep(0.1)
        done[work.delivery.event_key] = time.monotonic()

    handle(handler)
    for batch in range(10):
        integration_id = uuid4()
        with platform.database.intake() as session:
            insert_webhooks(
                session,
                [
                    NewDelivery(
                        org_id=people.salon.id,
                        integration_id=integration_id,
                        provider="test",
                        type="probe",
                        event_key=f"{batch}-{number}",
                        lane_key=f"l{batch}-{number}",
                        payload={},
                    )
                    for number in range(1000)
                ],
            )
    drain = Drain(platform, threads=8)
    stop = threading.Event()
    worker = threading.Thread(target=lambda: drain.run(keep_going=lambda: not stop.is_set()))
    worker.start()
    eventually(lambda: len(done) > 30, seconds=20)
    began = time.monotonic()
    put(platform, people.dental.id, "urgent")
    eventually(lambda: "urgent" in done, seconds=10)
    stop.set()
    worker.join(timeout=20)
    assert done["urgent"] - began < 1.0


def test_no_wake_up_is_lost_between_a_drains_last_claim_and_its_end(platform, people, valkey, handle):
    """The flag is down before the first claim, so whatever commits later rings a bell of its own."""
    link = RedisLink(valkey.url)
    link.use(lambda redis: redis.flushdb())
    bell = Bell(link)
    handle(lambda _: None)
    platform.bell = bell
    assert bell.ring_now()
    assert link.use(lambda redis: redis.exists(BELL_KEY)) == 1
    assert link.use(lambda redis: redis.llen("rq:queue:voicedesk")) == 1
    Drain(platform, threads=1).run()
    assert link.use(lambda redis: redis.exists(BELL_KEY)) == 0
    put(platform, people.salon.id, "in the gap")
    assert bell.ring_now()
    assert link.use(lambda redis: redis.llen("rq:queue:voicedesk")) == 2
    assert bell.ring_now()
    assert link.use(lambda redis: redis.llen("rq:queue:voicedesk")) == 2
