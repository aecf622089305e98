"""Over its quota an organization is last in turn: after everybody else, and without delay when nobody else is there."""

from __future__ import annotations

import threading
import time
from uuid import uuid4

import pytest
from sqlalchemy import text

from app.models.inbox import NewDelivery, insert_webhooks
from app.services import canary, handlers
from app.services.drain import Drain
from app.services.own_work import OwnWork, plan
from app.services.platform import Platform
from app.services.quotas import Usage
from app.services.webhook_quotas import LastInTurn, measure
from tests.eventually import eventually

QUOTA = 20


@pytest.fixture
def platform(platform: Platform) -> Platform:
    platform.settings = platform.settings.model_copy(update={"webhook_quota_per_hour": QUOTA})
    return platform


@pytest.fixture
def begun(monkeypatch):
    """When each event's handler began, in order; each takes 10 ms."""
    seen: list[tuple[str, float]] = []

    def handler(work) -> None:
        seen.append((work.delivery.event_key, time.monotonic()))
        time.sleep(0.01)

    monkeypatch.setitem(handlers._HANDLERS, ("test", "probe"), handler)
    return seen


@pytest.fixture
def drain(platform):
    """A drain in a thread of its own, until the test ends."""
    stop, threads = threading.Event(), []

    def start(size: int = 4) -> None:
        def run() -> None:
            one = Drain(platform, threads=size)
            while not stop.is_set():
                one.run(keep_going=lambda: not stop.is_set())

        threads.append(threading.Thread(target=run))
        threads[-1].start()

    yield start
    stop.set()
    for thread in threads:
        thread.join(timeout=20)


def put(platform: Platform, org_id, *keys: str) -> None:
    with platform.database.intake() as session:
        insert_webhooks(
            session,
            [
                NewDelivery(
                    org_id=org_id,
                    integration_id=uuid4(),
                    provider="test",
                    type="probe",
                    event_key=key,
                    lane_key=key,
                    payload={},
                )
                for key in keys
            ],
        )


def rows(platform: Platform, what: str) -> list[tuple]:
    with platform.database.transaction(system=True) as session:
        return [tuple(row) for row in session.execute(text(what)).all()]


def change(platform: Platform, statement: str, **values) -> None:
    with platform.database.transaction(system=True) as session:
        session.execute(text(statement), values)


def names(prefix: str, count: int) -> list[str]:
    return [f"{prefix}-{number}" for number in range(count)]


def keys_of(begun, prefix: str) -> list[int]:
    """At which places of the order those of one organization began."""
    return [place for place, (key, _) in enumerate(begun) if key.startswith(prefix)]


def test_who_is_near_the_quota_is_told_and_who_is_over_it_is_written_down(platform, people):
    salon, dental = people.salon.id, people.dental.id
    put(platform, salon, *names("salon", 17))
    put(platform, dental, *names("dental", 18))
    assert measure(platform) == [Usage(dental, 18, QUOTA)]
    put(platform, dental, "dental-18", "dental-19")
    assert measure(platform) == [Usage(dental, 20, QUOTA)]
    assert rows(platform, "SELECT org_id FROM quota_overruns") == []
    put(platform, dental, "dental-20")
    assert measure(platform) == [Usage(dental, 21, QUOTA)]
    assert rows(platform, "SELECT org_id, accepted, quota FROM quota_overruns WHERE until > now()") == [
        (dental, 21, 20)
    ]


def test_an_organization_may_have_a_quota_of_its_own(platform, people):
    change(platform, "UPDATE organizations SET webhook_quota_per_hour = 2 WHERE id = :id", id=people.salon.id)
    put(platform, people.salon.id, *names("salon", 3))
    assert measure(platform) == [Usage(people.salon.id, 3, 2)]


def test_duplicates_own_work_and_canaries_do_not_count(platform, people, client):
    canary.tend(platform)
    for _ in range(QUOTA + 5):
        with platform.database.transaction(people.salon.id) as session:
            plan(session, people.salon.id, OwnWork.SEND_MESSAGE, lane_key="x", payload={})
    for _ in range(QUOTA + 5):
        people.salon.text(client, "+4915111111111", "Hello", sid="SM" + "1" * 32)
    assert measure(platform) == []


def test_what_is_older_than_an_hour_does_not_count_and_an_overrun_ends(platform, people):
    put(platform, people.salon.id, *names("salon", QUOTA + 1))
    assert measure(platform)
    assert LastInTurn(platform).organizations() == [people.salon.id]
    change(platform, "DELETE FROM ledger_entries")
    change(
        platform,
        "INSERT INTO ledger_entries (org_id, provider, accepted, at)"
        " VALUES (:id, 'test', 50, now() - interval '61 min')",
        id=people.salon.id,
    )
    assert measure(platform) == []
    assert LastInTurn(platform).organizations() == []


def test_an_overrun_that_nobody_measures_any_more_ends_by_itself(platform, people):
    put(platform, people.salon.id, *names("salon", QUOTA + 1))
    measure(platform)
    change(platform, "UPDATE quota_overruns SET until = now()")
    assert LastInTurn(platform).organizations() == []


def test_when_busy_everybody_else_comes_first(platform, people, begun):
    put(platform, people.salon.id, *names("salon", 100))
    measure(platform)
    put(platform, people.dental.id, *names("dental", QUOTA))
    Drain(platform, threads=4).run()
    assert len(begun) == 100 + QUOTA
    assert max(keys_of(begun, "dental")) < QUOTA + 4


def test_within_the_quota_they_take_turns(platform, people, begun):
    """The other side of the test above: it is the quota that makes the difference."""
    put(platform, people.salon.id, *names("salon", 100))
    put(platform, people.dental.id, *names("dental", QUOTA))
    Drain(platform, threads=4).run()
    assert min(keys_of(begun, "salon")) < 4


def test_behind_2000_of_one_over_its_quota_anothers_next_event_begins_within_a_second(platform, people, begun, drain):
    put(platform, people.salon.id, *names("salon", 2000))
    measure(platform)
    drain()
    eventually(lambda: len(begun) > 20)
    for number in range(5):
        put(platform, people.dental.id, f"dental-{number}")
        since = time.monotonic()
        eventually(lambda wanted=number: len(keys_of(begun, "dental")) > wanted, seconds=5, every=0.005)
        key, at = begun[keys_of(begun, "dental")[-1]]
        assert key == f"dental-{number}"
        assert at - since < 1
    assert len(begun) < 2000


def test_two_over_their_quota_leave_threads_free_and_take_turns(platform, people, begun, drain):
    put(platform, people.salon.id, *names("salon", 200))
    put(platform, people.dental.id, *names("dental", 200))
    measure(platform)
    drain()
    eventually(lambda: len(begun) > 60)
    assert min(len(keys_of(begun, "salon")), len(keys_of(begun, "dental"))) > 10


def time_one(platform: Platform, org_id, begun, key: str) -> float:
    """Seconds from the commit of an event to the beginning of its handler, in a drain that begins then."""
    put(platform, org_id, key)
    since = time.monotonic()
    Drain(platform, threads=4).run()
    ((_, at),) = [entry for entry in begun if entry[0] == key]
    return at - since


def test_in_an_idle_system_its_event_begins_as_fast_as_anybodys(platform, people, begun):
    put(platform, people.salon.id, *names("salon", QUOTA + 1))
    measure(platform)
    Drain(platform, threads=4).run()
    over = min(time_one(platform, people.salon.id, begun, f"salon-next-{number}") for number in range(5))
    within = min(time_one(platform, people.dental.id, begun, f"dental-next-{number}") for number in range(5))
    assert over < within + 0.1


def test_measuring_200000_entries_of_the_last_hour_is_cheap(platform, people):
    change(
        platform,
        "INSERT INTO ledger_entries (org_id, provider, accepted, at)"
        " SELECT CASE WHEN i % 2 = 0 THEN CAST(:id AS uuid) ELSE md5(CAST(i % 9999 AS text))::uuid END, 'test', 1,"
        " now() - make_interval(secs => 3500.0 * i / 200000) FROM generate_series(1, 200000) i",
        id=people.salon.id,
    )
    took = []
    for _ in range(5):
        began = time.perf_counter()
        assert measure(platform) == [Usage(people.salon.id, 100_000, QUOTA)]
        took.append(time.perf_counter() - began)
    assert min(took) < 1
