"""Alerts of a whole house, causes made to happen for real: told once at the beginning and once at the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
import requests
from sqlalchemy import text

from app.services import replay
from app.services.messages import plan_text
from sandbox.standins import RemoteWorld
from tests.e2e.house import House
from tests.eventually import eventually
from tests.people import Business, open_business

TOKEN, CHANNEL = "xoxb-of-the-tests", "C0123456789"
ADA = "+4915112345678"
HEALTHY_SECONDS = 60.0
QUIET_SECONDS = 5.0  # ten looks of each process, in which nothing more may be told
SHORT = {
    "slack_bot_token": TOKEN,
    "slack_alert_channel": CHANNEL,
    "watch_seconds": 0.5,
    "alert_window_seconds": 1,
    "canary_seconds": 10,
    "oldest_waiting_limit_seconds": 20,
}


@pytest.fixture
def house(tmp_path, world: RemoteWorld) -> Iterator[House]:
    """Two web processes and a worker, with a Slack that is read here."""
    world.slack_token(TOKEN)
    world.slack_channel(CHANNEL, "alerts")
    house = House(tmp_path, world, **SHORT)
    try:
        house.start_web()
        house.start_worker()
        eventually(lambda: canaries_by(house, "worker") >= 2, seconds=60)
        yield house
    finally:
        house.close()


def canaries_by(house: House, kind: str) -> int:
    statement = (
        "SELECT count(*) FROM delivery_attempts a JOIN webhook_delivery_log d ON d.id = a.delivery_id"
        f" WHERE d.type = 'canary' AND a.outcome = 'processed' AND a.process LIKE '{kind}:%'"
    )
    return int(house.query(statement)[0][0])


def told(house: House) -> list[str]:
    return [post["text"].partition(": ")[2] for post in house.world.slack_posts()]


def expect(house: House, *lines: str, seconds: float = 60) -> None:
    """These, in this order, and nothing else."""
    try:
        eventually(lambda: len(told(house)) >= len(lines), seconds=seconds, every=0.2)
    finally:
        assert told(house) == list(lines)


def stays(house: House, *lines: str) -> None:
    """Nothing more is told for a while."""
    until = time.monotonic() + QUIET_SECONDS
    while time.monotonic() < until:
        assert told(house) == list(lines)
        time.sleep(0.2)


def plan(house: House, business: Business, number: int, *, to: str = ADA) -> None:
    with house.platform.database.transaction(business.id) as session:
        words: dict[str, Any] = {"body": "hello", "channel": "sms", "purpose": "test"}
        plan_text(session, business.id, to=to, idempotency_key=f"k{number}", **words)
    house.platform.bell.ring()


@pytest.mark.timeout(240)
def test_redis_stopped_and_started_is_told_once_each(house):
    house.valkey.kill()
    expect(house, "Redis cannot be reached")
    stays(house, "Redis cannot be reached")
    house.valkey.start()
    both = ("Redis cannot be reached", "Redis is back")
    expect(house, *both)
    stays(house, *both)


@pytest.mark.timeout(240)
def test_the_database_stopped_and_started_is_told_while_it_is_away_and_when_it_is_back(house):
    house.postgres.kill()
    expect(house, "The database cannot be reached")
    stays(house, "The database cannot be reached")
    house.postgres.start()
    both = ("The database cannot be reached", "The database is back")
    expect(house, *both)
    stays(house, *both)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_a_worker_that_is_gone_or_lives_and_does_nothing_is_told_and_its_return(house, how):
    if how == "killed":
        house.keep_down("worker")
    else:
        house.freeze("worker")
    expect(house, "No worker works", seconds=90)
    if how == "killed":
        house.start_worker("worker2")
    else:
        house.thaw("worker")
    both = ("No worker works", "Workers work again")
    expect(house, *both, seconds=90)
    stays(house, *both)


@pytest.mark.timeout(240)
def test_a_providers_outage_opens_and_closes_its_circuit_and_is_told_once_each(house, world):
    salon = open_business(house.platform, world, "Salon", "+4930111110001")
    world.fault("twilio", "error_500")
    for number in range(4):
        plan(house, salon, number, to=f"+491511234567{number}")
    expect(house, "Circuit twilio_sms is open")
    stays(house, "Circuit twilio_sms is open")
    world.clear_faults()
    both = ("Circuit twilio_sms is open", "Circuit twilio_sms is closed")
    expect(house, *both)
    stays(house, *both)


@pytest.mark.timeout(240)
def test_a_dead_letter_is_told_and_its_replay_ends_it(house, world):
    salon = open_business(house.platform, world, "Salon", "+4930111110001")
    world.twilio_recipient(ADA, refuse=21211)
    plan(house, salon, 1)
    eventually(lambda: told(house), seconds=30)
    (began,) = told(house)
    assert began.startswith("Dead letters: voicedesk message.send (")
    ((dead,),) = house.query("SELECT id FROM webhook_delivery_log WHERE status = 'dead'")
    world.twilio_recipient(ADA)
    replay.replay(house.platform, dead, actor="test")
    expect(house, began, f"No more dead l{began[6:]}")
    stays(house, began, f"No more dead l{began[6:]}")


@pytest.mark.timeout(300)
def test_under_healthy_load_nothing_is_told(house, world):
    businesses = [open_business(house.platform, world, f"Business {n}", f"+493011111000{n}") for n in range(4)]
    until = time.monotonic() + HEALTHY_SECONDS
    sent: list[int] = []
    refused: list[int] = []

    def load(business: Business) -> None:
        session = requests.Session()
        number = 0
        while time.monotonic() < until:
            number += 1
            answer = session.post(
                f"{house.base_url}/webhooks/vapi/{business.vapi_token}",
                json={"message": {"type": "status-update", "status": "in-progress", "call": {"id": str(uuid4())}}},
                headers={"X-Vapi-Secret": business.vapi_secret},
                timeout=10,
            )
            (sent if answer.status_code == 200 else refused).append(answer.status_code)
            if number % 100 == 1:
                plan(house, business, number)
            time.sleep(0.02)

    run_together([lambda business=business: load(business) for business in businesses])
    assert refused == []
    assert len(sent) > 1000
    unfinished = "SELECT count(*) FROM webhook_delivery_log WHERE finished_at IS NULL AND type NOT LIKE 'message.check'"
    eventually(lambda: house.query(unfinished)[0][0] <= 1, seconds=30)
    with house.platform.database.transaction(system=True) as session:
        assert session.execute(text("SELECT key, facts FROM alerts")).all() == []
    assert told(house) == []


def run_together(actions: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=action) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=HEALTHY_SECONDS + 60)
