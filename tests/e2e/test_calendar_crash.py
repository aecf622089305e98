"""A worker that is killed in the middle of a sync: the next one begins it again, and nobody is told twice."""

from __future__ import annotations

from datetime import timedelta

import pytest

from app.services import calendar_sync
from tests.e2e.house import House
from tests.eventually import eventually
from tests.integration.test_booking import ADA, tomorrow
from tests.people import open_business

GRACE = "+4915187654321"


@pytest.fixture
def house(tmp_path, world):
    house = House(tmp_path, world)
    yield house
    house.close()


@pytest.mark.timeout(120)
def test_a_sync_whose_worker_is_killed_is_done_by_the_next(house, world):
    salon = open_business(house.platform, world, "North Street Salon", "+4930111110001")
    house.start_web()
    house.start_worker()
    for hour, name, phone in ((9, "Ada", ADA), (11, "Grace", GRACE)):
        start = tomorrow(hour).isoformat()
        said = salon.tool(house.client, "book_appointment", call_id=name, start=start, name=name, phone=phone)
        assert said.startswith("Booked for")
    calendar_sync.request_now(house.platform, salon.id)
    eventually(lambda: house.query("SELECT 1 FROM calendar_syncs WHERE synced_at IS NOT NULL"), seconds=30)
    eventually(lambda: len(world.messages()) == 2, seconds=30)
    events = {event["summary"]: event["id"] for event in world.events(salon.calendar_id)}

    world.fault("google", "hang", operation="get_event")
    world.move_event(salon.calendar_id, events["Ada"], tomorrow(15), tomorrow(15) + timedelta(minutes=30))
    world.delete_event(salon.calendar_id, events["Grace"])
    before = house.query("SELECT sync_token FROM calendar_syncs")
    calendar_sync.request_now(house.platform, salon.id)
    moved = f"SELECT 1 FROM appointments WHERE name = 'Ada' AND starts_at = '{tomorrow(15).isoformat()}'"
    eventually(lambda: house.query(moved) and world.requests("google", "get_event"), seconds=30)
    house.kill("worker")
    assert house.query("SELECT sync_token FROM calendar_syncs") == before
    assert house.query("SELECT status FROM appointments WHERE name = 'Grace'") == [("booked",)]

    world.clear_faults()
    house.start_worker("another")
    eventually(
        lambda: house.query("SELECT 1 FROM appointments WHERE name = 'Grace' AND status = 'cancelled'"), seconds=60
    )
    eventually(lambda: house.query("SELECT sync_token FROM calendar_syncs") != before, seconds=30)
    eventually(lambda: len(world.messages()) == 4, seconds=30)
    assert sorted(message["to"] for message in world.messages()) == sorted([ADA, GRACE] * 2)
    assert house.query("SELECT version FROM appointments ORDER BY name") == [(2,), (2,)]
