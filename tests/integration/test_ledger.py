"""The ledger: two sides counted independently, so that it balances when all is well and fails when it is not."""

from __future__ import annotations

import contextlib
import threading
from uuid import uuid4

import pytest
from flask_migrate import upgrade
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app import create_app
from app.errors import PermanentFailure, TemporaryFailure
from app.models import attempts, lanes
from app.models.inbox import NewDelivery, insert_webhooks
from app.models.recorded import Ending
from app.services import cleanup, handlers, ledger
from app.services.delivery import Skip
from app.services.drain import Drain
from app.services.own_work import OwnWork, plan
from app.services.platform import Platform
from app.services.replay import replay
from app.services.webhook_quotas import measure
from tests.conftest import make_settings
from tests.probes import probe


class _Crash(Exception):
    """The process ends in the middle of a transaction."""


@pytest.fixture
def handle(monkeypatch):
    def register(function):
        monkeypatch.setitem(handlers._HANDLERS, ("test", "probe"), function)

    return register


def event(org_id, key: str, integration_id=None, **facts) -> NewDelivery:
    return probe(org_id, key, **facts, **({"integration_id": integration_id} if integration_id else {}))


def put(platform: Platform, *events: NewDelivery) -> None:
    with platform.database.intake() as session:
        insert_webhooks(session, events)


def rows(platform: Platform, what: str) -> list[tuple]:
    with platform.database.transaction(system=True) as session:
        return [tuple(row) for row in session.execute(text(what)).all()]


def change(platform: Platform, statement: str) -> None:
    with platform.database.transaction(system=True) as session:
        session.execute(text(statement))


def sums(platform: Platform) -> tuple[int, ...]:
    found = ledger.check(platform)
    assert found.difference == 0
    return (found.accepted, found.processed, found.dead, found.skipped, found.waiting)


def test_an_empty_book_balances(platform):
    assert sums(platform) == (0, 0, 0, 0, 0)


def test_every_ending_is_entered_and_what_is_not_ended_is_waiting(platform, people, handle):
    def handler(work):
        match work.delivery.event_key:
            case "bad":
                raise PermanentFailure
            case "later":
                raise TemporaryFailure
            case "nothing":
                return Skip("nothing to do")

    handle(handler)
    platform.settings = platform.settings.model_copy(update={"retry_base_seconds": 60})
    put(platform, *(event(people.salon.id, key) for key in ("good", "bad", "later", "nothing")))
    assert sums(platform) == (4, 0, 0, 0, 4)
    Drain(platform, threads=4).run()
    assert sums(platform) == (4, 1, 1, 1, 1)


def test_a_duplicate_is_accepted_once_and_a_group_is_one_entry_for_each_organization_and_provider(platform, people):
    integration = uuid4()
    salon, dental = people.salon.id, people.dental.id
    put(platform, event(salon, "a", integration), event(salon, "b", integration), event(dental, "a"))
    put(platform, event(salon, "a", integration), event(salon, "c", integration, provider="other"))
    entries = rows(platform, "SELECT org_id, provider, accepted FROM ledger_entries ORDER BY id")
    assert sorted(entries[:2]) == sorted([(salon, "test", 2), (dental, "test", 1)])
    assert entries[2:] == [(salon, "other", 1)]
    assert sums(platform) == (4, 0, 0, 0, 4)


def test_what_is_stored_as_ended_has_its_ending_in_the_same_entry(platform, people, client):
    people.salon.vapi(client, {"type": "assistant-request", "call": {"id": "c-1"}})
    assert people.salon.vapi(client, ["not a message"]).status_code in {200, 400}  # type: ignore[arg-type]
    put(platform, event(people.salon.id, "ended", status="skipped"))
    assert sums(platform) == (3, 1, 1, 1, 0)


def test_own_work_is_entered_by_a_tenant_and_vanishes_with_its_transaction(platform, people):
    def plan_one() -> None:
        plan(session, people.salon.id, OwnWork.SEND_MESSAGE, lane_key="x", payload={})

    with platform.database.transaction(people.salon.id) as session:
        plan_one()
    with contextlib.suppress(_Crash), platform.database.transaction(people.salon.id) as session:
        plan_one()
        raise _Crash
    assert sums(platform) == (1, 0, 0, 0, 1)


def test_a_replay_takes_the_ending_back_and_a_second_one_at_once_takes_nothing(platform, people, handle):
    handle(lambda _: None)
    put(platform, event(people.salon.id, "a"))
    Drain(platform, threads=1).run()
    ((delivery_id,),) = rows(platform, "SELECT id FROM webhook_delivery_log")
    reopened = []

    def reopen() -> None:
        with platform.database.transaction(system=True) as session:
            reopened.append(attempts.reopen(session, org_id=people.salon.id, delivery_id=delivery_id))

    threads = [threading.Thread(target=reopen) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert sorted(reopened) == [False, False, False, True]
    assert sums(platform) == (1, 0, 0, 0, 1)
    Drain(platform, threads=1).run()
    replay(platform, delivery_id, actor="tests")
    Drain(platform, threads=1).run()
    assert sums(platform) == (1, 1, 0, 0, 0)


def test_an_ending_recorded_twice_is_entered_once(platform, people):
    """A commit whose answer was lost is tried again."""
    put(platform, event(people.salon.id, "a"))
    with platform.database.transaction(system=True) as session:
        claim = lanes.claim_lanes(session, after=lanes.FIRST_ORG, most=1, per_org=1, lease_seconds=30, full=[])
    (lane,) = claim.lanes
    delivery = lane.deliveries[0]
    with platform.database.transaction(system=True) as session:
        facts = {"org_id": lane.org_id, "lane_key": lane.lane_key, "token": lane.token}
        attempts.begin(session, **facts, delivery_id=delivery.id, process="worker:here:1")
    for _ in range(2):
        with platform.database.transaction(system=True) as session:
            attempts.end(session, Ending("processed", "processed"), org_id=lane.org_id, delivery_id=delivery.id)
    assert sums(platform) == (1, 1, 0, 0, 0)


def test_a_buried_suspect_is_entered_as_dead(platform, people):
    put(platform, event(people.salon.id, "a"))
    change(platform, "UPDATE webhook_delivery_log SET crashes = 4, running_since = now(), status = 'processing'")
    Drain(platform, threads=1).run()
    assert sums(platform) == (1, 0, 1, 0, 0)


def test_cleanup_deletes_deliveries_and_the_books_still_balance(platform, people, handle):
    handle(lambda _: None)
    put(platform, *(event(people.salon.id, key) for key in "abc"))
    Drain(platform, threads=2).run()
    put(platform, event(people.salon.id, "d"))
    change(
        platform, "UPDATE webhook_delivery_log SET finished_at = now() - interval '60 days' WHERE status <> 'received'"
    )
    cleanup.clean_up(platform)
    assert rows(platform, "SELECT count(*) FROM webhook_delivery_log") == [(1,)]
    assert sums(platform) == (4, 3, 0, 0, 1)


def test_a_lost_delivery_breaks_the_books_and_its_organization_is_named(platform, people, handle):
    put(platform, event(people.salon.id, "a"), event(people.dental.id, "b"))
    change(platform, "DELETE FROM webhook_delivery_log WHERE event_key = 'a'")
    assert ledger.check(platform).difference == 1
    with platform.database.transaction(system=True) as session:
        assert ledger.ledger.unbalanced(session) == [(people.salon.id, 1)]


def test_an_ending_without_an_entry_breaks_the_books(platform, people):
    put(platform, event(people.salon.id, "a"))
    change(platform, "UPDATE webhook_delivery_log SET status = 'processed', finished_at = now()")
    assert ledger.check(platform).difference == 1


def test_a_delivery_that_nobody_accepted_breaks_the_books(platform, people):
    put(platform, event(people.salon.id, "a"))
    change(platform, "DELETE FROM ledger_entries")
    assert ledger.check(platform).difference == -1


def test_what_is_erased_is_accounted_for(platform, people):
    put(platform, event(people.salon.id, "a"))
    change(platform, "DELETE FROM webhook_delivery_log")
    change(
        platform,
        f"INSERT INTO ledger_entries (org_id, provider, erased) VALUES ('{people.salon.id}', 'test', 1)",
    )
    assert ledger.check(platform).difference == 0


def age(platform: Platform) -> None:
    """As if two hours had passed. (No role may update an entry.)"""
    change(
        platform,
        "WITH gone AS (DELETE FROM ledger_entries WHERE at > 'epoch' RETURNING *)"
        " INSERT INTO ledger_entries (org_id, provider, accepted, processed, dead, skipped, erased, at)"
        " SELECT org_id, provider, accepted, processed, dead, skipped, erased, at - interval '2 hours' FROM gone",
    )


def test_rolling_up_leaves_one_row_an_organization_and_provider_and_the_same_sums(
    platform, people, handle, monkeypatch
):
    monkeypatch.setattr(ledger, "PIECE", 7)
    handle(lambda _: None)
    for number in range(10):
        put(platform, event(people.salon.id, f"a{number}"), event(people.dental.id, f"b{number}"))
    Drain(platform, threads=2).run()
    put(platform, event(people.salon.id, "waits"))
    before = sums(platform)
    assert ledger.roll_up(platform) == 0
    age(platform)
    put(platform, event(people.salon.id, "of now"))
    assert ledger.roll_up(platform) == 41
    assert ledger.roll_up(platform) == 0
    entries = rows(platform, "SELECT org_id, accepted, processed, at = 'epoch' FROM ledger_entries ORDER BY 2")
    assert sorted(entries) == sorted(
        [(people.salon.id, 1, 0, False), (people.dental.id, 10, 10, True), (people.salon.id, 11, 10, True)]
    )
    assert sums(platform) == (before[0] + 1, *before[1:4], before[4] + 1)
    age(platform)
    ledger.roll_up(platform)
    assert rows(platform, "SELECT count(*) FROM ledger_entries") == [(2,)]


def test_rolling_up_ends_when_the_process_is_told_to_stop_and_the_next_one_goes_on(platform, people, monkeypatch):
    monkeypatch.setattr(ledger, "PIECE", 1)
    for number in range(3):
        put(platform, event(people.salon.id, f"a{number}"))
    age(platform)
    stopping = threading.Event()
    stopping.set()
    assert ledger.roll_up(platform, stopping) == 0
    assert ledger.roll_up(platform, threading.Event()) == 3


def test_two_roll_ups_beside_intake_lose_nothing(platform, people, monkeypatch):
    monkeypatch.setattr(ledger, "PIECE", 5)
    for number in range(40):
        put(platform, event(people.salon.id, f"old{number}"))
    age(platform)
    failures: list[Exception] = []

    def repeat(action) -> None:
        try:
            for number in range(10):
                action(number)
        except (DBAPIError, AssertionError) as error:
            failures.append(error)

    actions = [lambda _: ledger.roll_up(platform), lambda _: ledger.roll_up(platform), lambda _: sums(platform)]
    actions.append(lambda number: put(platform, event(people.salon.id, f"new{number}")))
    threads = [threading.Thread(target=repeat, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert failures == []
    assert sums(platform)[0] == 50
    assert rows(platform, "SELECT count(*) FROM ledger_entries WHERE at = 'epoch'") == [(1,)]


def test_a_roll_up_that_dies_in_the_middle_changes_nothing(platform, people):
    put(platform, event(people.salon.id, "a"), event(people.dental.id, "b"))
    age(platform)
    with contextlib.suppress(_Crash), platform.database.transaction(system=True) as session:
        assert ledger.ledger.carry_forward(session, most=10) == 2
        raise _Crash
    assert sums(platform)[0] == 2
    assert rows(platform, "SELECT count(*) FROM ledger_entries WHERE at = 'epoch'") == [(0,)]


def test_a_migration_opens_the_books_with_what_is_there_and_nobody_is_over_a_quota_for_it(empty_database_urls):
    app = create_app(make_settings(empty_database_urls, webhook_quota_per_hour=1))
    platform = app.extensions["platform"]
    with app.app_context():
        upgrade(revision="0002")
    deliveries = "INSERT INTO webhook_delivery_log (org_id, provider, type, event_key, lane_key, status) VALUES "
    organization = uuid4()
    change(platform, f"INSERT INTO organizations VALUES ('{organization}', 'Old', 'UTC', null, null, null, '{{}}')")
    for status in ("received", "retrying", "processed", "processed", "skipped", "dead"):
        change(platform, f"{deliveries} ('{organization}', 'vapi', 't', 'k', 'l', '{status}')")
    with app.app_context():
        upgrade()
    assert sums(platform) == (6, 2, 1, 1, 2)
    assert measure(platform) == []
    platform.close()
