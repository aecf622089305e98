"""After a provider's outage: what waited goes out at the rate that the provider allows, and soon."""

from __future__ import annotations

import time
from collections import Counter
from datetime import datetime

import pytest

from app.services.messages import plan_text
from sandbox.standins import RemoteWorld
from tests.e2e.house import House
from tests.eventually import eventually
from tests.people import Business, open_business

UNSENT = "SELECT count(*) FROM messages WHERE provider_sid IS NULL"


def offer(house: House, salon: Business, *, seconds: float, per_second: float, first: int) -> int:
    """Plan texts for so long, evenly; return how many."""
    began = time.monotonic()
    offered = 0
    while time.monotonic() - began < seconds:
        with house.platform.database.transaction(salon.id) as session:
            plan_text(
                session,
                salon.id,
                to=f"+49151{first + offered:08d}",
                body=f"text number {first + offered}",
                channel="sms",
                idempotency_key=f"k{first + offered:08d}",
                purpose="test",
            )
        house.platform.bell.ring()
        offered += 1
        time.sleep(max(0.0, began + offered / per_second - time.monotonic()))
    return offered


def suffer(house: House, salon: Business, world: RemoteWorld, *, outage: float, offered: float, within: float) -> float:
    """An outage under load and the time after it; how long it took until nothing waited any more."""
    known = len(world.messages())
    world.fault("twilio", "error_500")
    begun = known + offer(house, salon, seconds=outage, per_second=offered, first=known)
    world.clear_faults("twilio")
    back_at = time.monotonic()
    offered_until = begun
    while house.query(f"{UNSENT} AND idempotency_key < 'k{offered_until:08d}'")[0][0]:
        assert time.monotonic() - back_at < within, "it takes too long"
        begun += offer(house, salon, seconds=1 / offered, per_second=offered, first=begun)
    took = time.monotonic() - back_at
    eventually(lambda: house.query(UNSENT) == [(0,)], seconds=10)
    assert Counter(message["body"] for message in world.messages()) == {
        f"text number {number}": 1 for number in range(begun)
    }
    return took


@pytest.mark.timeout(120)
def test_what_waited_for_a_provider_is_done_soon_and_at_its_rate(tmp_path, world):
    house = House(
        tmp_path,
        world,
        twilio_texts_per_second=10,
        circuit_open_seconds=1.0,
        unknown_lookup_seconds=1.0,
        status_check_seconds=3600,
    )
    try:
        salon = open_business(house.platform, world, "Salon", "+4930111110001")
        world.twilio_settings(sender_rate=10)
        house.start_worker()
        offer(house, salon, seconds=0.5, per_second=4, first=0)
        eventually(lambda: house.query(UNSENT) == [(0,)], seconds=40)
        took = suffer(house, salon, world, outage=5, offered=5, within=15)
    finally:
        house.close()
    assert took < 12
    asked = world.requests("twilio")
    assert [one for one in asked if one["status"] == 429] == []
    failed = [datetime.fromisoformat(one["at"]) for one in asked if one["status"] == 500]
    gaps = [(later - sooner).total_seconds() for sooner, later in zip(failed, failed[1:], strict=False)]
    assert 3 <= len(failed) <= 10
    assert all(gap > 0.95 for gap in gaps[3:])
