"""Cleanup: what is finished and old goes, and nothing else ever."""

from __future__ import annotations

from uuid import uuid4

import pytest
from sqlalchemy import text

from app.models.inbox import NewDelivery, insert_webhooks
from app.services.cleanup import clean_up


@pytest.fixture
def put(platform, people):
    """Store one event and say in which state and how long ago it was finished."""

    def store(key: str, status: str, finished: str | None) -> None:
        event = NewDelivery(
            org_id=people.salon.id,
            integration_id=uuid4(),
            provider="vapi",
            type="hang",
            event_key=key,
            lane_key="lane",
            payload={},
        )
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
    assert left(platform) == (["1-fresh", "2-day", "3-late"], ["1-fresh", "3-late"])


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
