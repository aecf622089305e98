"""How many at once: seats of the organization, of people and of rooms, guarded by the database."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from app.models.appointments import wait_for_turn
from app.services import calendar_sync
from tests.bookings import book, free, on, rows
from tests.command_line import CommandLine
from tests.conftest import superuser
from tests.eventually import eventually
from tests.integration.test_booking import hurry_finishing


@pytest.fixture
def typed(app, platform):
    """The command line; what it sets is seen by the next call."""
    return CommandLine(app)


def synced(platform, business):
    with platform.database.transaction(business.id) as session:
        return session.scalar(text("SELECT synced_at FROM calendar_syncs"))


def test_as_many_as_there_are_seats_are_booked_at_once_also_in_one_calendar(app, platform, people, world, typed):
    typed.data("org", "set", people.salon.id, "--seats", 3)

    def ask(number: int) -> str:
        return book(app.test_client(), people.salon, on(1, 9), f"c{number}", name=f"N{number}")

    with ThreadPoolExecutor(5) as pool:
        said = list(pool.map(ask, range(5)))
    assert sum(one.startswith("Booked for") for one in said) == 3, said
    assert sum("is taken" in one for one in said) == 2, said
    booked = [row for row in rows(platform, people.salon) if row.status == "booked"]
    assert sorted(row.seat for row in booked) == [1, 2, 3]
    assert len(world.events(people.salon.calendar_id)) == 3


def test_what_people_drag_onto_a_booking_takes_another_seat_and_is_no_conflict(
    client, platform, people, world, settle, typed
):
    salon = people.salon
    typed.data("org", "set", salon.id, "--seats", 2)
    for number, hour in enumerate((9, 11)):
        assert book(client, salon, on(1, hour), f"c{number}", name=f"N{number}").startswith("Booked for")
    calendar_sync.tend(platform)
    settle(lambda: synced(platform, salon))
    event = next(one for one in world.events(salon.calendar_id) if one["summary"] == "N1")
    world.move_event(salon.calendar_id, event["id"], on(1, 9), on(1, 9, 30))
    calendar_sync.request_now(platform, salon.id)
    hurry_finishing(platform)
    settle(lambda: {row.starts_at for row in rows(platform, salon)} == {on(1, 9)})
    assert sorted(row.seat for row in rows(platform, salon)) == [1, 2]
    with platform.database.transaction(salon.id) as session:
        assert session.scalar(text("SELECT count(*) FROM appointments WHERE external_conflict")) == 0
    said = book(client, salon, on(1, 9), "c9")
    assert "is taken" in said


def test_somebody_elses_event_keeps_every_seat_busy(client, platform, people, world, typed):
    typed.data("org", "set", people.salon.id, "--seats", 2)
    assert book(client, people.salon, on(1, 9), "c1").startswith("Booked for")
    world.insert_foreign_event(people.salon.calendar_id, on(1, 10), on(1, 11))
    offered = free(client, people.salon, on(1, 9), on(1, 12))
    assert on(1, 9).isoformat() in offered
    assert on(1, 10).isoformat() not in offered
    assert "is taken" in book(client, people.salon, on(1, 10), "c2")


def deadlocks(postgres, database: str) -> int:
    with superuser(postgres) as cursor:
        cursor.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = %s", (database,))
        return cursor.fetchone()[0]


def test_two_callers_at_once_get_two_people_and_never_the_same(app, platform, people, typed, postgres, database_urls):
    typed.data("service", "add", people.salon.id, "Cut", "--minutes", 30, "--after", 15)
    for name in ("Ann", "Bob"):
        typed.data("staff", "add", people.salon.id, name)

    def ask(number: int) -> str:
        start = on(1, 9) + timedelta(minutes=30 * (number % 2))  # the buffers of these overlap
        return book(app.test_client(), people.salon, start, f"c{number}")

    with ThreadPoolExecutor(6) as pool:
        said = list(pool.map(ask, range(6)))
    assert sum(one.startswith("Booked for") for one in said) == 2, said
    assert deadlocks(postgres, database_urls.name) == 0  # each would have taken a second, with somebody on the line
    held = [row for row in rows(platform, people.salon) if row.status == "booked"]
    assert sorted(row.staff for row in held) == ["Ann", "Bob"]


def test_two_who_take_a_time_take_turns_and_never_wait_for_each_other(app, platform, people):
    """Both would have written their row and waited for the other's, which PostgreSQL looks into after a second."""
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"

    def somebody_waits() -> bool:
        with platform.database.transaction(system=True) as session:
            return session.execute(text(waiting)).scalar_one() == 1

    with ThreadPoolExecutor(1) as pool:
        with platform.database.transaction(people.salon.id) as first:
            wait_for_turn(first, people.salon.id)
            said = pool.submit(book, app.test_client(), people.salon, on(1, 9), "c1")
            eventually(somebody_waits, seconds=3)
            assert not said.done()
        assert said.result(5).startswith("Booked for")


def test_the_database_itself_refuses_a_seat_or_a_buffer_that_is_taken(client, platform, people, typed):
    typed.data("service", "add", people.salon.id, "Cut", "--minutes", 30, "--after", 15)
    typed.data("staff", "add", people.salon.id, "Ann", "--seats", 2)
    book(client, people.salon, on(1, 9), "c1")
    copy = (
        "INSERT INTO appointments (id, org_id, calendar_id, resource_id, seat, starts_at, ends_at, status, name)"
        " SELECT gen_random_uuid(), org_id, calendar_id, resource_id, :seat, ends_at + :later * interval '1 minute',"
        " ends_at + interval '1 hour', 'booked', 'Eve' FROM appointments WHERE name = 'Ada'"
    )
    refused = []
    for seat, later in ((1, 0), (1, 14), (2, 0), (1, 15)):
        try:
            with platform.database.transaction(people.salon.id) as session:
                session.execute(text(copy), {"seat": seat, "later": later})
        except IntegrityError as error:
            refused.append((seat, later, getattr(error.orig, "pgcode", None)))
    assert refused == [(1, 0, "23P01"), (1, 14, "23P01")]
