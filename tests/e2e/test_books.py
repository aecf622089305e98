"""The books at work: they balance at every moment of a run in which processes are killed, and at its end."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.errors import DatabaseUnavailable
from app.services import canary, ledger
from tests.e2e.house import House
from tests.e2e.test_whole_call import persistently
from tests.eventually import eventually
from tests.people import Business, open_business

CALLS = 60


@pytest.fixture
def house(tmp_path, world):
    house = House(tmp_path, world, canary_seconds=2, watch_seconds=1)
    yield house
    house.close()


def post(house: House, salon: Business, number: int) -> None:
    """A call's beginning, told twice, and a question that is answered at once."""
    call = {"id": f"call-{number}"}
    for _ in range(2):
        persistently(lambda: salon.vapi(house.client, {"type": "status-update", "status": "in-progress", "call": call}))
    persistently(lambda: salon.vapi(house.client, {"type": "assistant-request", "call": call}))


@pytest.mark.timeout(180)
def test_the_books_balance_at_every_moment_whatever_is_killed(house, world):
    salon = open_business(house.platform, world, "Salon", "+4930111110001")
    house.start_web()
    house.start_worker("worker1")
    house.start_worker("worker2")
    differences: list[int] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            try:
                differences.append(ledger.check(house.platform).difference)
            except DatabaseUnavailable:
                continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with ThreadPoolExecutor(4) as pool:
            posts = [pool.submit(post, house, salon, number) for number in range(CALLS)]
            for part, name in ((4, "worker1"), (2, "web")):
                eventually(lambda part=part: sum(one.done() for one in posts) > CALLS // part, seconds=60)
                house.kill(name)
            for one in posts:
                one.result(timeout=90)
        eventually(lambda: ledger.check(house.platform).waiting == 0, seconds=60, every=0.2)
    finally:
        over.set()
        watcher.join(timeout=20)
    assert len(differences) > 10
    assert set(differences) == {0}
    ours = f"WHERE org_id = '{salon.id}' AND provider = 'vapi'"
    (entered,) = house.query(f"SELECT sum(accepted), sum(processed) FROM ledger_entries {ours}")
    ((stored,),) = house.query(f"SELECT count(*) FROM webhook_delivery_log {ours}")
    assert entered == (stored, stored)
    assert house.query("SELECT count(*) FROM calls") == [(CALLS,)]
    eventually(lambda: canary.look(house.platform).by == "worker", seconds=30, every=0.2)
