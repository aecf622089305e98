"""The database's clock set back by an hour: what it dated while it was ahead does not wait for that hour."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from app.services import handlers
from app.services.platform import Platform
from tests.probes import put_probes

AHEAD = "now() + interval '1 hour'"


@pytest.fixture(autouse=True)
def handled(monkeypatch):
    monkeypatch.setitem(handlers._HANDLERS, ("test", "probe"), lambda _: None)


def execute(platform: Platform, *statements: str) -> None:
    with platform.database.transaction(system=True) as session:
        for statement in statements:
            session.execute(text(statement))


def rows(platform: Platform, what: str) -> list[tuple]:
    with platform.database.transaction(system=True) as session:
        return [tuple(row) for row in session.execute(text(what)).all()]


def dated_ahead(platform: Platform, *, by: str = AHEAD) -> None:
    """As the rows stand when a clock that was an hour ahead has just been set right."""
    execute(
        platform,
        f"UPDATE lanes SET due_at = {by}",
        f"UPDATE webhook_delivery_log SET received_at = {by}, next_attempt_at = {by}",
        f"INSERT INTO singletons (name, holder, until) VALUES ('clock', '', {AHEAD})",
    )


def test_what_came_in_while_the_clock_was_ahead_is_delivered_when_it_is_set_right(platform, people):
    put_probes(platform, people.salon.id, "a", "b")
    dated_ahead(platform)
    platform.caretaker.sweep()
    assert rows(platform, "SELECT DISTINCT status FROM webhook_delivery_log") == [("processed",)]
    assert rows(platform, "SELECT count(*) FROM lanes") == [(0,)]


def test_a_retry_that_was_dated_while_the_clock_was_ahead_keeps_its_distance(platform, people):
    put_probes(platform, people.salon.id, "a")
    dated_ahead(platform, by=f"{AHEAD} + interval '10 minutes'")
    platform.caretaker.sweep()
    left = "SELECT extract(epoch FROM due_at - now())::int BETWEEN 590 AND 610 FROM lanes"
    assert rows(platform, left) == [(True,)]
    assert rows(platform, "SELECT status FROM webhook_delivery_log") == [("received",)]


def test_a_step_is_told_to_one_of_all_who_look(platform, people, another):
    put_probes(platform, people.salon.id, "a")
    dated_ahead(platform, by=f"{AHEAD} + interval '30 minutes'")
    for one in (platform, another()):
        one.caretaker.drain.clock.look()
    left = "SELECT extract(epoch FROM due_at - now())::int BETWEEN 1790 AND 1800 FROM lanes"
    assert rows(platform, left) == [(True,)]


def test_a_sweeper_that_died_while_the_clock_was_ahead_holds_its_role_no_longer_than_a_lease(platform):
    execute(platform, f"INSERT INTO singletons (name, holder, until) VALUES ('sweeper', 'gone', {AHEAD})")
    platform.caretaker.sweep()
    assert rows(platform, "SELECT holder = 'gone' FROM singletons WHERE name = 'sweeper'") == [(False,)]


def test_dates_stay_as_they_are_while_the_clock_does(platform, people):
    put_probes(platform, people.salon.id, "a")
    platform.caretaker.sweep()
    put_probes(platform, people.salon.id, "b")
    execute(
        platform, f"UPDATE lanes SET due_at = {AHEAD}", f"UPDATE webhook_delivery_log SET next_attempt_at = {AHEAD}"
    )
    platform.caretaker.sweep()
    assert rows(platform, "SELECT due_at > now() + interval '59 minutes' FROM lanes") == [(True,)]
