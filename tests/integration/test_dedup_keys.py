"""An event is known by its integration and its key, whatever letters the key has: same is same, and nothing else is."""

from __future__ import annotations

import hashlib
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from app.models.inbox import insert_webhooks
from tests.probes import probe

HERE, THERE = uuid4(), uuid4()
# A backslash begins an escape where PostgreSQL reads bytes; an accent may be one letter or two.
KEYS = ["A", r"\x41", r"\101", "\\", "\\\\", "a\\b", "a\\\\b", "a'b", "café", "cafe\u0301", "📞", " ", "", "k" * 200]


@pytest.fixture
def store(platform, people):
    def stored(integration_id: UUID, key: str) -> bool:
        event = probe(people.salon.id, key, integration_id=integration_id, lane_key="lane")
        with platform.database.intake() as session:
            return bool(insert_webhooks(session, [event]))

    return stored


def test_each_of_these_keys_is_another_event_and_each_is_stored_once(store):
    assert [store(HERE, key) for key in KEYS] == [True] * len(KEYS)
    assert [store(HERE, key) for key in KEYS] == [False] * len(KEYS)


def test_the_same_key_through_another_integration_is_another_event(store):
    assert [store(HERE, "one"), store(THERE, "one"), store(HERE, "one")] == [True, True, False]


def test_a_key_is_known_by_the_beginning_of_its_sha256(platform, store):
    for key in KEYS:
        store(HERE, key)
    with platform.database.transaction(system=True) as session:
        rows = session.execute(text("SELECT event_key, digest FROM processed_webhook_events")).all()
    assert dict(map(tuple, rows)) == {
        key: UUID(bytes=hashlib.sha256(HERE.bytes + key.encode()).digest()[:16]) for key in KEYS
    }
