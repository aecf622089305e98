"""Cleanup: what is finished and old goes, and nothing else ever."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import text

from app.models.inbox import insert_webhooks
from app.models.operations import hold_singleton
from app.services import cleanup
from app.services.cleanup import BusyCleaning, clean_up, what_would_go
from app.services.nightly import Nightly
from tests.command_line import CommandLine
from tests.eventually import eventually
from tests.probes import probe


@pytest.fixture
def put(platform, people):
    """Store one event and say in which state and how long ago it was finished."""

    def store(key: str, status: str, finished: str | None) -> None:
        event = probe(people.salon.id, key, lane_key="lane")
        with platform.database.intake() as session:
            insert_webhooks(session, [event])
        with platform.database.transaction(system=True) as session:
            session.execute(
                text(
                    "UPDATE webhook_delivery_log SET status = :status, received_at = now() - interval '90 days',"
                    " finished_at = now() - CAST(:finished AS interval) WHERE event_key = :key"
                ),
                {"status": status, "finished": finished, "key": key},
            )

    return store


def left(platform):
    with platform.database.transaction(system=True) as session:
        deliveries = session.execute(text("SELECT event_key FROM webhook_delivery_log ORDER BY 1")).scalars().all()
        keys = session.execute(text("SELECT event_key FROM processed_webhook_events ORDER BY 1")).scalars().all()
    return list(deliveries), list(keys)


def test_a_key_goes_a_day_after_its_delivery_was_finished_and_the_delivery_after_seven(platform, put):
    put("1-fresh", "processed", "23 hours")
    put("2-day", "processed", "25 hours")
    put("3-late", "skipped", "6 days")
    put("4-week", "processed", "8 days")
    clean_up(platform)
    assert left(platform) == (["1-fresh", "2-day", "3-late"], ["1-fresh"])


def test_dead_ones_stay_thirty_days_with_their_keys(platform, put):
    put("1-dead", "dead", "29 days")
    put("2-dead", "dead", "31 days")
    clean_up(platform)
    assert left(platform) == (["1-dead"], ["1-dead"])


@pytest.mark.parametrize("status", ["received", "processing", "retrying"])
def test_what_is_not_finished_is_never_deleted_however_old(platform, put, status):
    put("old", status, None)
    clean_up(platform)
    assert left(platform) == (["old"], ["old"])


def test_a_key_goes_also_when_no_cleanup_ran_for_days(platform, put):
    put("1-first", "processed", "6 days")
    clean_up(platform)
    put("2-missed", "processed", "5 days")
    put("3-missed", "skipped", "3 days")
    clean_up(platform)
    assert left(platform) == (["1-first", "2-missed", "3-missed"], [])


def test_how_long_things_are_kept_is_set(database_urls, put, platform):
    put("1", "processed", "25 hours")
    put("2", "processed", "47 hours")
    put("3", "dead", "11 days")
    shorter = platform.settings.model_copy(
        update={"keep_keys_hours": 26, "keep_deliveries_days": 1.9, "keep_dead_days": 10}
    )
    platform.settings = shorter
    clean_up(platform)
    assert left(platform) == (["1"], ["1"])


def test_a_dry_run_counts_what_would_go_and_deletes_nothing(app, platform, put):
    put("1", "processed", "25 hours")
    put("2", "processed", "8 days")
    put("3", "dead", "31 days")
    with platform.database.transaction(system=True) as session:
        session.execute(
            text(
                "INSERT INTO alerts (key, kind, ended_at)"
                " VALUES ('a', 'a', now() - interval '91 days'), ('b', 'b', NULL)"
            )
        )
    before = left(platform)
    told = CommandLine(app).data("cleanup", "--dry-run")
    assert left(platform) == before
    done = CommandLine(app).data("cleanup")
    assert {name: told[name] for name in ("keys", "deliveries", "dead", "alerts")} == {
        "keys": 2,
        "deliveries": 1,
        "dead": 1,
        "alerts": 1,
    }
    assert {name: done[name] for name in ("keys", "deliveries", "dead", "answers", "alerts")} == {
        name: told[name] for name in ("keys", "deliveries", "dead", "answers", "alerts")
    }
    assert done["complete"]
    kinds = ("keys", "deliveries", "dead", "answers", "alerts", *cleanup.WORDS)
    assert what_would_go(platform) == dict.fromkeys(kinds, 0) | {"dry_run": True}


def test_attempts_go_with_their_delivery(platform, put):
    put("old", "processed", "8 days")
    with platform.database.transaction(system=True) as session:
        session.execute(
            text(
                "INSERT INTO delivery_attempts (org_id, delivery_id, number, lane_token, process)"
                " SELECT org_id, id, 1, 1, 'worker:a:1' FROM webhook_delivery_log"
            )
        )
    clean_up(platform)
    with platform.database.transaction(system=True) as session:
        for table in ("webhook_delivery_log", "delivery_attempts", "webhook_payloads"):
            assert session.execute(text(f"SELECT count(*) FROM {table}")).scalar() == 0


def test_one_that_is_replayed_while_the_cleanup_looks_at_it_stays(platform, put):
    put("replayed", "processed", "8 days")
    with platform.database.transaction(system=True) as session:
        session.execute(text("UPDATE webhook_delivery_log SET status = 'received', finished_at = NULL"))
        session.flush()
        clean_up(platform)  # sees it as it was, finished, and finds it locked
    assert left(platform)[0] == ["replayed"]


def test_more_than_one_piece_goes_and_what_stays_between_is_not_walked_into(platform, put, monkeypatch):
    monkeypatch.setattr(cleanup, "PIECE", 2)
    for number in range(5):
        put(f"{number}-gone", "processed", f"{8 + number} days")
        put(f"{number}-stays", "dead", f"{8 + number} days")
    assert clean_up(platform)["deliveries"] == 5
    assert left(platform)[0] == [f"{number}-stays" for number in range(5)]


def test_two_at_once_do_not_clean_the_same(platform, put):
    put("old", "processed", "8 days")
    with platform.database.transaction(system=True) as session:
        hold_singleton(session, cleanup.ROLE, holder="another process", lease=timedelta(minutes=1))
    with pytest.raises(BusyCleaning):
        clean_up(platform)
    assert left(platform)[0] == ["old"]


def test_the_sweep_cleans_once_a_night_when_nobody_else_does(platform, put):
    put("1-old", "processed", "8 days")
    first, second = Nightly(platform), Nightly(platform)
    first.tend()
    eventually(lambda: left(platform)[0] == [])
    first.stop()
    put("2-old", "processed", "8 days")
    second.tend()
    second.stop()
    assert left(platform)[0] == ["2-old"]
    with platform.database.transaction(system=True) as session:
        due = session.execute(text("SELECT until FROM singletons WHERE name = 'cleanup_due'")).scalar_one()
        assert timedelta() < due - datetime.now(UTC) <= timedelta(days=1)
        session.execute(text("UPDATE singletons SET until = now() - interval '1 second' WHERE name = 'cleanup_due'"))
    third = Nightly(platform)
    third.tend()
    eventually(lambda: left(platform)[0] == [])
    third.stop()


def test_events_are_accepted_while_a_backlog_of_expired_ones_goes(platform, people, put):
    with platform.database.transaction(system=True) as session:
        session.execute(
            text(
                "INSERT INTO webhook_delivery_log"
                " (org_id, integration_id, provider, type, event_key, lane_key, status, finished_at)"
                " SELECT :org, :integration, 'vapi', 'hang', 'old' || n, 'lane', 'processed', now() - interval '8 days'"
                " FROM generate_series(1, 20000) n"
            ),
            {"org": people.salon.id, "integration": uuid4()},
        )
    waits: list[float] = []
    done = threading.Event()

    def accept():
        while not done.is_set():
            began = time.monotonic()
            put_event = probe(people.salon.id, f"new{len(waits)}", lane_key="lane")
            with platform.database.intake() as session:
                insert_webhooks(session, [put_event])
            waits.append(time.monotonic() - began)

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        assert clean_up(platform)["deliveries"] == 20000
    finally:
        done.set()
        accepting.join(timeout=10)
    assert len(left(platform)[0]) == len(waits) > 20
    assert max(waits) < 1.5
