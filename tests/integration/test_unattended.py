"""What nobody handles is finished many at a time, and nothing of what is promised for each event is lost by it."""

from __future__ import annotations

import threading
from uuid import UUID

import pytest
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy import text

from app.models import lanes
from app.models.inbox import NewDelivery, insert_webhooks
from app.models.unattended import Kinds, finish_in_turn
from app.services import handlers, ledger
from app.services.drain import Drain
from app.services.platform import Platform
from tests.command_line import CommandLine
from tests.eventually import eventually
from tests.integration.test_delivery import rows

INTEGRATION = UUID(int=7)


def put(platform: Platform, org_id: UUID, *events: tuple[str, str, str]) -> None:
    """Store events of (lane, type, key)."""
    stored = [
        NewDelivery(
            org_id=org_id,
            integration_id=INTEGRATION,
            provider="test",
            type=kind,
            event_key=key,
            lane_key=lane,
            payload={"said": "hello"},
        )
        for lane, kind, key in events
    ]
    with platform.database.intake() as session:
        insert_webhooks(session, stored)


def many(number: int, *, kind: str = "nobodys") -> list[tuple[str, str, str]]:
    return [(f"lane-{count}", kind, f"{kind}-{count}") for count in range(number)]


def statuses(platform: Platform) -> dict[str, str]:
    return dict(rows(platform, "SELECT event_key, status FROM webhook_delivery_log"))


@pytest.fixture
def statements(platform) -> list[str]:
    """What the database was asked, from now on."""
    asked: list[str] = []

    def note(_connection, _cursor, statement, *_):
        asked.append(statement)

    sqlalchemy_event.listen(platform.database.engine, "before_cursor_execute", note)
    yield asked
    sqlalchemy_event.remove(platform.database.engine, "before_cursor_execute", note)


def test_hundreds_of_them_are_finished_in_a_few_commits_each_with_its_trace_and_its_place_in_the_books(
    platform, people, statements
):
    put(platform, people.salon.id, *many(400))
    drain = Drain(platform, threads=4)
    assert drain.run() == 400
    assert len(statements) < 100
    assert set(statuses(platform).values()) == {"skipped"}
    traces = rows(platform, "SELECT DISTINCT number, outcome, duration_ms, ended_at IS NOT NULL FROM delivery_attempts")
    assert traces == [(1, "skipped", 0, True)]
    assert rows(platform, "SELECT count(*), count(DISTINCT lane_token) FROM delivery_attempts") == [(400, 400)]
    log = "SELECT DISTINCT attempts, note, finished_at IS NOT NULL, running_since FROM webhook_delivery_log"
    assert rows(platform, log) == [(1, "no handler for this type", True, None)]
    assert rows(platform, "SELECT count(*) FROM lanes") == [(0,)]
    assert ledger.check(platform).difference == 0
    assert rows(platform, "SELECT sum(accepted), sum(skipped), sum(processed) FROM ledger_entries") == [(400, 400, 0)]


def test_in_a_lane_those_before_and_behind_one_with_a_handler_keep_their_order(platform, people, monkeypatch):
    ended: list[dict[str, str]] = []
    monkeypatch.setitem(handlers._HANDLERS, ("test", "probe"), lambda work: ended.append(statuses(work.platform)))
    put(platform, people.salon.id, ("a", "nobodys", "1"), ("a", "probe", "2"), ("a", "nobodys", "3"))
    eventually(lambda: Drain(platform, threads=2).run() == 0)
    assert ended == [{"1": "skipped", "2": "processing", "3": "received"}]
    assert statuses(platform) == {"1": "skipped", "2": "processed", "3": "skipped"}


def test_a_kind_that_gets_a_handler_is_handled_from_then_on(platform, people, monkeypatch):
    drain = Drain(platform, threads=2)
    put(platform, people.salon.id, *many(3))
    drain.run()
    handled = []
    monkeypatch.setitem(handlers._HANDLERS, ("test", "nobodys"), lambda work: handled.append(work.delivery.event_key))
    put(platform, people.salon.id, ("x", "nobodys", "x"))
    eventually(lambda: drain.run() == 0)
    assert handled == ["x"]


def test_a_suspended_organizations_wait_and_are_finished_when_it_is_resumed(app, platform, people):
    cli = CommandLine(app)
    put(platform, people.dental.id, *many(3, kind="others"))
    cli.data("org", "suspend", people.salon.id)
    put(platform, people.salon.id, *many(3))
    drain = Drain(platform, threads=2)
    eventually(lambda: drain.run() == 0)
    found = statuses(platform)
    assert [found[f"nobodys-{count}"] for count in range(3)] == ["retrying"] * 3
    assert [found[f"others-{count}"] for count in range(3)] == ["skipped"] * 3
    cli.data("org", "resume", people.salon.id)
    eventually(lambda: drain.run() == 0 and set(statuses(platform).values()) == {"skipped"})


def test_of_an_organization_that_keeps_no_words_none_are_kept(app, platform, people):
    CommandLine(app).data("org", "set", people.salon.id, "--retention", 0)
    put(platform, people.salon.id, *many(3))
    eventually(lambda: Drain(platform, threads=2).run() == 0)
    assert rows(platform, "SELECT count(*) FROM webhook_payloads WHERE body::text LIKE '%hello%'") == [(0,)]


def test_one_that_was_begun_and_left_by_a_process_that_died_is_a_suspect_and_not_swept_along(platform, people):
    put(platform, people.salon.id, ("a", "nobodys", "a"), ("b", "nobodys", "b"))
    with platform.database.transaction(system=True) as session:
        session.execute(
            text("UPDATE webhook_delivery_log SET running_since = now(), attempts = 1 WHERE event_key = 'a'")
        )
        kinds = Kinds({("test", "nobodys")}, note="n", process="p")
        done = finish_in_turn(session, kinds, after=lanes.FIRST_ORG, most=10, full=[])
    assert [(one.lane_key, one.attempts) for one in done.finished] == [("b", 1)]
    assert rows(platform, "SELECT lane_key FROM lanes") == [("a",)]


def test_two_workers_and_a_door_that_goes_on_taking_finish_each_once(platform, people, another):
    other = another()
    put(platform, people.salon.id, *many(600))
    put(platform, people.dental.id, *many(300, kind="others"))
    drains = [Drain(one, threads=4) for one in (platform, other)]

    def take_more() -> None:
        for count in range(200):  # into lanes that are being finished just now
            put(platform, people.salon.id, (f"lane-{count * 3}", "nobodys", f"more-{count}"))

    threads = [threading.Thread(target=take_more), *(threading.Thread(target=drain.run) for drain in drains)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    eventually(lambda: drains[0].run() == 0)
    assert rows(platform, "SELECT status, count(*) FROM webhook_delivery_log GROUP BY 1") == [("skipped", 1100)]
    assert rows(platform, "SELECT count(*), count(DISTINCT delivery_id) FROM delivery_attempts") == [(1100, 1100)]
    assert rows(platform, "SELECT sum(skipped) FROM ledger_entries") == [(1100,)]
    assert rows(platform, "SELECT count(*) FROM lanes") == [(0,)]


def test_one_with_a_handler_gets_its_turn_while_thousands_without_one_wait(platform, people, monkeypatch):
    put(platform, people.salon.id, *many(3000))
    put(platform, people.dental.id, ("call", "probe", "probe"))
    left: list[int] = []
    monkeypatch.setitem(
        handlers._HANDLERS,
        ("test", "probe"),
        lambda work: left.append(sum(status == "received" for status in statuses(work.platform).values())),
    )
    drain = Drain(platform, threads=4)
    drain.run()
    assert left
    assert left[0] > 1000
