"""Health: each part speaks for itself, and only "cannot take a webhook" is 503 for a balancer."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest
from sqlalchemy import text

from app import create_app
from app.errors import ConfigurationError
from app.integrations.breaker import circuits
from app.models.inbox import insert_webhooks
from app.services import canary, health
from app.services.drain import Drain
from app.services.installation import make_roles
from app.services.lately import Lately
from app.services.platform import Platform
from tests.circuits import Provider
from tests.conftest import make_settings
from tests.eventually import eventually
from tests.probes import probe


def ask(app, path):
    answer = app.test_client().get(path)
    assert app.test_client().head(path).status_code == answer.status_code
    return answer.status_code, answer.get_json()


@pytest.fixture
def build(database_urls, world):
    apps = []

    def make(**overrides):
        app = create_app(make_settings(database_urls, world, **overrides))
        apps.append(app)
        return app

    yield make
    for app in apps:
        app.extensions["platform"].close()


def test_the_process_lives(app):
    status, report = ask(app, "/health")
    assert status == 200
    assert report["status"] == "healthy"
    assert report["timestamp"]


def test_without_redis_it_is_ready_and_says_that_it_is_degraded(app):
    status, report = ask(app, "/health/ready")
    assert (status, report["status"]) == (200, "degraded")
    assert "Redis is not configured" in report["reasons"][0]


def test_with_redis_it_is_healthy(build, valkey):
    app = build(redis_url=valkey.url)
    told = {}

    def healthy():  # a busy machine may once keep it waiting for longer than a request waits for Redis
        told.update(ask(app, "/health/ready")[1])
        return told["status"] == "healthy"

    with contextlib.suppress(AssertionError):
        eventually(healthy)
    assert told["status"] == "healthy", told
    assert ask(app, "/health/redis")[0] == 200


def test_a_frozen_redis_costs_no_more_than_a_moment(build, own_valkey):
    app = build(redis_url=own_valkey.url)
    assert ask(app, "/health/redis")[0] == 200
    own_valkey.freeze()
    began = time.monotonic()
    assert ask(app, "/health/redis")[0] == 503
    assert ask(app, "/health/ready")[1]["status"] == "degraded"
    assert time.monotonic() - began < 2
    own_valkey.thaw()


def test_without_a_database_the_spool_takes_webhooks_and_only_without_both_nobody_does(build):
    app = build(database_url="postgresql://nobody:x@127.0.0.1:1/none")
    status, report = ask(app, "/health/ready")
    assert (status, report["status"]) == (200, "degraded")
    assert "spool" in report["reasons"][0]
    neither = build(database_url="postgresql://nobody:x@127.0.0.1:1/none", spool_max_bytes=0)
    assert ask(neither, "/health/ready")[0] == 503
    assert ask(app, "/health/database")[0] == 503
    assert ask(app, "/health/queue")[0] == 503
    assert ask(app, "/health")[0] == 200


def test_vapi_is_probed_if_it_is_configured(build, world, monkeypatch):
    monkeypatch.setattr(health, "_probe", health._VapiProbe())
    assert ask(build(), "/health/vapi")[1]["status"] == "not_configured"
    world.vapi_key("the-right-key")
    assert ask(build(vapi_private_key="the-right-key"), "/health/vapi")[0] == 200
    monkeypatch.setattr(health, "_probe", health._VapiProbe())
    status, report = ask(build(vapi_private_key="a-wrong-key"), "/health/vapi")
    assert (status, report["code"]) == (503, "credentials_refused")


def test_a_hanging_vapi_does_not_make_a_slow_page(build, world, monkeypatch):
    monkeypatch.setattr(health, "_probe", health._VapiProbe())
    world.vapi_key("the-right-key")
    world.fault("vapi", "hang")
    began = time.monotonic()
    assert ask(build(vapi_private_key="the-right-key"), "/health/vapi")[0] == 503
    assert time.monotonic() - began < 4


def test_tables_that_are_missing_are_named_with_what_to_do(empty_database_urls, world):
    platform = Platform(make_settings(empty_database_urls, world))
    make_roles(platform.settings)
    with pytest.raises(ConfigurationError, match="db upgrade"):
        health.queue(platform)
    platform.close()


def change(platform: Platform, statement: str, **values) -> None:
    with platform.database.transaction(system=True) as session:
        session.execute(text(statement), values)


def put(platform: Platform, org_id, key: str) -> None:
    event = probe(org_id, key, type="unknown", payload={"said": "a secret of a caller"})
    with platform.database.intake() as session:
        insert_webhooks(session, [event])


def look_at_queue(app):
    """The queue as it is now, whatever was looked at a moment ago."""
    app.extensions["platform"].lately = Lately()
    return ask(app, "/health/queue")


def test_the_queue_tells_how_work_moves_and_names_nobody(app, platform, people):
    put(platform, people.salon.id, "a")
    canary.tend(platform)
    Drain(platform, threads=2).run()
    put(platform, people.dental.id, "b")
    status, report = look_at_queue(app)
    assert (status, report["status"]) == (200, "healthy")
    books = {"accepted": 3, "processed": 1, "dead": 0, "skipped": 1, "erased": 0, "waiting": 1, "balanced": True}
    assert report["ledger"] == books
    assert report["canary"]["by"] == "web"
    assert report["canary"]["age_seconds"] < 30
    assert report["canary"]["missed"] is False
    assert report["oldest_waiting_seconds"] < 30
    assert report["open_alerts"] == report["dead_last_hour"] == 0
    change(platform, "UPDATE webhook_delivery_log SET status = 'dead', finished_at = now() WHERE event_key = 'b'")
    assert look_at_queue(app)[1]["dead_last_hour"] == 1
    assert report["circuits"]["twilio_sms"] == "closed"
    for secret in (str(people.salon.id), str(people.dental.id), people.salon.name, "secret", str(canary.CANARY_ORG_ID)):
        assert secret not in str(report)


def test_an_open_circuit_is_told_and_is_no_reason_for_503(app, platform):
    Provider(circuits, "twilio_sms").fail(platform.settings.circuit_failures)
    status, report = look_at_queue(app)
    assert (status, report["circuits"]["twilio_sms"]) == (200, "open")


def test_work_that_nobody_takes_is_503_and_does_not_take_the_process_from_its_balancer(app, platform, people):
    put(platform, people.salon.id, "a")
    change(platform, "UPDATE lanes SET due_at = now() - interval '59 seconds'")
    assert look_at_queue(app)[0] == 200
    change(platform, "UPDATE lanes SET due_at = now() - interval '61 seconds'")
    status, report = look_at_queue(app)
    assert (status, report["reason"]) == (503, "work is due and nobody takes it")
    assert report["oldest_waiting_seconds"] >= 61
    status, report = ask(app, "/health/ready")
    assert (status, report["status"]) == (200, "degraded")
    assert "work is due and nobody takes it" in report["reasons"]
    Drain(platform, threads=1).run()
    assert look_at_queue(app)[0] == 200


def test_who_is_over_the_quota_is_meant_to_wait(app, platform, people):
    put(platform, people.salon.id, "a")
    change(platform, "UPDATE lanes SET due_at = now() - interval '10 minutes'")
    over = "INSERT INTO quota_overruns VALUES (:id, 2, 1, now() + interval '1 minute')"
    change(platform, over, id=people.salon.id)
    assert look_at_queue(app)[0] == 200
    change(platform, "UPDATE quota_overruns SET until = now()")
    assert look_at_queue(app)[0] == 503


def test_a_missed_canary_is_503(app, platform):
    canary.tend(platform)
    change(platform, "UPDATE webhook_delivery_log SET received_at = now() - interval '3 minutes'")
    status, report = look_at_queue(app)
    assert (status, report["canary"]["missed"]) == (503, True)


def test_idle_workers_degrade_the_queue_as_long_as_web_processes_deliver(build, valkey):
    app = build(redis_url=valkey.url)
    platform = app.extensions["platform"]
    for _ in range(2):
        assert canary.tend(platform)
        Drain(platform, threads=1).run()
    status, report = look_at_queue(app)
    assert (status, report["status"], report["workers_idle"]) == (200, "degraded", True)


def test_broken_books_are_told_and_are_no_reason_for_503(app, platform, people):
    put(platform, people.salon.id, "a")
    change(platform, "DELETE FROM webhook_delivery_log")
    status, report = look_at_queue(app)
    assert (status, report["status"], report["ledger"]["balanced"]) == (200, "degraded", False)
    assert report["reasons"] == ["the books do not balance"]


def test_what_many_ask_at_once_is_looked_at_once(platform):
    looks = []

    def look() -> int:
        looks.append(1)
        time.sleep(0.1)
        return len(looks)

    lately = Lately()
    answers: list[int] = []
    threads = [threading.Thread(target=lambda: answers.append(lately.ask("it", 60, look))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=10)
    assert answers == [1] * 20
    assert looks == [1]


def test_while_one_looks_again_the_others_get_the_last_answer(platform):
    lately = Lately()
    assert lately.ask("it", 60, lambda: "old") == "old"
    looking, answered = threading.Event(), threading.Event()

    def look_slowly() -> str:
        looking.set()
        answered.wait(10)
        return "new"

    thread = threading.Thread(target=lambda: lately.ask("it", 0, look_slowly))
    thread.start()
    assert looking.wait(10)
    assert lately.ask("it", 0, lambda: "not asked") == "old"
    answered.set()
    thread.join(timeout=10)
    eventually(lambda: lately.ask("it", 60, lambda: "not asked") == "new")


def test_a_look_that_raises_is_not_kept(platform):
    lately = Lately()
    with pytest.raises(ZeroDivisionError):
        lately.ask("it", 60, lambda: 1 // 0)
    assert lately.ask("it", 60, lambda: 7) == 7
