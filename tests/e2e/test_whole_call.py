"""The whole product as processes: what is acknowledged is done once, whatever is killed on the way."""

from __future__ import annotations

import os
import time
from datetime import datetime, timedelta
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
import requests

from app.database import LEFT_ALONE_SECONDS, PING_SECONDS
from tests.e2e.house import House
from tests.eventually import eventually
from tests.people import Business, open_business

ADA = "+4915112345678"
WAKE_UPS = int(os.environ.get("WAKE_UPS") or 300)  # 2000 for the whole measurement
UNFINISHED = (  # a reminder waits for the day before
    "SELECT count(*) FROM webhook_delivery_log WHERE status IN ('received', 'processing', 'retrying')"
    " AND type <> 'appointment.remind'"
)


@pytest.fixture
def build(tmp_path, world):
    """Make a house; it is torn down afterwards."""
    houses = []

    def make(**options) -> House:
        house = House(tmp_path, world, **options)
        houses.append(house)
        return house

    yield make
    for house in houses:
        house.close()


def slot(hour: int) -> str:
    day = datetime.now(ZoneInfo("Europe/Berlin")) + timedelta(days=2)
    return day.replace(hour=hour, minute=0, second=0, microsecond=0).isoformat()


def persistently(post, *, seconds: float = 40):
    """As a provider that retries would: again until it is taken."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            answer = post()
            if answer.status_code == 200:
                return answer
        except requests.RequestException:
            pass
        assert time.monotonic() < deadline, "it was never taken"
        time.sleep(0.2)


def play(house: House, salon: Business, hour: int, *, between=lambda step: None) -> str:
    """One call; ``between`` is called after each step."""
    call_id = str(uuid4())
    call = {"id": call_id}

    def post(step: int, message: dict) -> None:
        persistently(lambda: salon.vapi(house.client, {**message, "call": call}))
        between(step)

    booking = {
        "id": f"call_{call_id}",
        "type": "function",
        "function": {"name": "book_appointment", "arguments": {"start": slot(hour), "name": "Ada", "phone": ADA}},
    }
    post(1, {"type": "status-update", "status": "in-progress"})
    post(2, {"type": "tool-calls", "toolCallList": [booking]})
    post(3, {"type": "status-update", "status": "ended", "endedReason": "customer-ended-call"})
    post(4, {"type": "end-of-call-report", "transcript": "User: hi", "artifact": {}, "analysis": {}, "cost": 0.1})
    return call_id


def expect_all_done(house: House, salon: Business, calls: int, *, seconds: float = 60) -> None:
    """Every call has its record, its event and its one text, delivered; nothing is left."""

    def done() -> bool:
        delivered = house.query("SELECT count(*) FROM messages WHERE status = 'delivered'")[0][0]
        booked = house.query("SELECT count(*) FROM appointments WHERE status = 'booked'")[0][0]
        ended = house.query("SELECT count(*) FROM calls WHERE status = 'ended' AND transcript IS NOT NULL")[0][0]
        return (delivered, booked, ended) == (calls, calls, calls)

    try:
        eventually(done, seconds=seconds, every=0.2)
    except AssertionError as error:
        left = house.query(
            "SELECT id, type, status, attempts, crashes, error_code, waiting_on, running_since, next_attempt_at, note"
            " FROM webhook_delivery_log WHERE status NOT IN ('processed', 'skipped')"
        )
        lanes = house.query("SELECT lane_key, due_at, token, now() FROM lanes")
        texts = house.query("SELECT status, error_code, sends, lookups, sending_since FROM messages")
        raise AssertionError(f"{error}\nleft: {left}\nlanes: {lanes}\ntexts: {texts}") from None
    assert len(house.world.events(salon.calendar_id)) == calls
    assert len(house.world.messages()) == calls
    assert house.query("SELECT count(*) FROM webhook_delivery_log WHERE status = 'dead'") == [(0,)]


def test_without_redis_the_web_process_delivers_by_itself(build, world):
    house = build(redis=False)
    salon = open_business(house.platform, world, "Salon", "+4930111110001")
    house.start_web()
    play(house, salon, 9)
    expect_all_done(house, salon, 1)


@pytest.mark.timeout(180)
def test_redis_frozen_killed_and_back_again_between_events_loses_and_doubles_nothing(build, world):
    house = build()
    salon = open_business(house.platform, world, "Salon", "+4930111110001")
    house.start_web()
    house.start_worker()
    play(house, salon, 9, between=lambda step: house.valkey.freeze() if step == 2 else None)
    expect_all_done(house, salon, 1)
    house.valkey.thaw()
    play(house, salon, 10, between=lambda step: house.valkey.kill() if step == 1 else None)
    expect_all_done(house, salon, 2)
    house.valkey.start()
    play(house, salon, 11)
    expect_all_done(house, salon, 3)


@pytest.mark.timeout(300)
def test_kill_9_of_web_worker_redis_and_postgres_in_the_middle_of_a_call_changes_nothing(build, world):
    house = build()
    salon = open_business(house.platform, world, "Salon", "+4930111110001")
    house.start_web()
    house.start_worker()
    house.start_scheduler()

    def restart_redis() -> None:
        house.valkey.kill()
        house.valkey.start()

    def restart_postgres() -> None:
        house.postgres.kill()
        house.postgres.start()

    kills = [lambda: house.kill("web"), lambda: house.kill("worker"), restart_redis, restart_postgres]
    for number, kill in enumerate(kills):
        play(house, salon, 9 + number, between=lambda step, kill=kill: kill() if step == 2 else None)
        expect_all_done(house, salon, number + 1, seconds=90)


@pytest.mark.timeout(180)
def test_a_frozen_postgres_is_answered_for_in_time_and_loses_nothing(build, world):
    house = build()
    salon = open_business(house.platform, world, "Salon", "+4930111110001")
    house.start_web()
    house.start_worker()
    play(house, salon, 9)
    expect_all_done(house, salon, 1)
    house.postgres.freeze()
    try:
        for _ in range(4):  # each process of the two, more than once
            asked = time.monotonic()
            answer = salon.vapi(house.client, {"type": "assistant-request", "call": {"id": "frozen"}})
            assert answer.status_code == 200
            assert time.monotonic() - asked < 5.5
            posted = time.monotonic()
            kept = salon.vapi(house.client, {"type": "status-update", "status": "ringing", "call": {"id": "frozen"}})
            assert kept.status_code == 200
            assert time.monotonic() - posted < 5.5
    finally:
        house.postgres.thaw()
    # Each process ends a wait that is under way, and then leaves the database alone for a second.
    time.sleep(PING_SECONDS + LEFT_ALONE_SECONDS)
    eventually(lambda: all(requests.get(f"{house.base_url}/health/database", timeout=5).ok for _ in range(20)))
    play(house, salon, 10)
    expect_all_done(house, salon, 2)


@pytest.mark.timeout(180)
def test_no_event_waits_for_the_sweep_while_a_worker_is_idle_and_both_workers_work(build, world):
    house = build()
    salon = open_business(house.platform, world, "Salon", "+4930111110001")
    house.start_web()
    house.start_worker("worker1")
    house.start_worker("worker2")
    play(house, salon, 9)
    expect_all_done(house, salon, 1)
    session = requests.Session()
    for number in range(WAKE_UPS):
        message = {"type": "status-update", "status": "in-progress", "call": {"id": f"w{number}"}}
        answer = session.post(
            f"{house.base_url}/webhooks/vapi/{salon.vapi_token}",
            json={"message": message},
            headers={"X-Vapi-Secret": salon.vapi_secret},
            timeout=10,
        )
        assert answer.status_code == 200
        time.sleep((number * 7 % 50) / 1000)
    eventually(lambda: house.query(UNFINISHED) == [(0,)], seconds=20)
    worst, processes = house.query(
        "SELECT max(extract(epoch FROM a.started_at - d.received_at)), count(DISTINCT a.process)"
        " FROM webhook_delivery_log d JOIN delivery_attempts a ON a.delivery_id = d.id WHERE d.event_key LIKE '%w%'"
    )[0]
    assert worst < 1.0
    assert processes == 2


@pytest.mark.timeout(120)
def test_one_worker_with_providers_that_take_300_ms_delivers_at_least_20_a_second(build, world):
    from app.services.messages import plan_text

    house = build(twilio_texts_per_second=1000)  # what the worker can do, not what one sender may
    salon = open_business(house.platform, world, "Salon", "+4930111110001")
    world.latency(0.3)
    with house.platform.database.transaction(salon.id) as session:
        for number in range(200):
            plan_text(
                session,
                salon.id,
                to=f"+49151{number:08d}",
                body="hello",
                channel="sms",
                idempotency_key=f"k{number}",
                purpose="test",
            )
    house.start_worker()
    eventually(
        lambda: house.query("SELECT count(*) FROM messages WHERE provider_sid IS NOT NULL") == [(200,)], seconds=40
    )
    world.latency(0.0)
    ((seconds,),) = house.query(
        "SELECT extract(epoch FROM max(a.ended_at) - min(a.started_at)) FROM delivery_attempts a"
        " JOIN webhook_delivery_log d ON d.id = a.delivery_id WHERE d.type = 'message.send'"
    )
    assert 200 / float(seconds) >= 20
