"""Events that the database refuses: kept raw and dead, alone, and never answered with a 500."""

from __future__ import annotations

from hashlib import sha256

import pytest
from sqlalchemy import text

from app.errors import DatabaseUnavailable
from app.integrations.events import InboundEvent
from app.services import intake
from app.services.platform import Platform


@pytest.fixture
def endpoint(platform: Platform, people):
    with platform.database.transaction(system=True) as session:
        token = session.execute(text("SELECT token FROM integrations WHERE provider = 'twilio' LIMIT 1")).scalar_one()
    return platform.directory.endpoint("twilio", token)


def event(*, key: str = "key", lane: str = "lane", payload: dict | None = None) -> InboundEvent:
    return InboundEvent(provider="test", type="probe", event_key=key, lane_key=lane, payload=payload or {})


def stored(platform: Platform) -> list[tuple]:
    with platform.database.transaction(system=True) as session:
        found = session.execute(
            text(
                "SELECT d.status, d.error_code, p.raw IS NOT NULL FROM webhook_delivery_log d"
                " JOIN webhook_payloads p ON p.delivery_id = d.id AND p.org_id = d.org_id ORDER BY d.id"
            )
        )
        return [tuple(row) for row in found]


@pytest.mark.parametrize(
    "payload",
    [{"text": "a\x00b"}, {"text": "half a pair: \ud800"}, {"number": 2**70}],
    ids=["nul", "lone surrogate", "a number beyond 64 bits"],
)
def test_a_payload_the_database_refuses_is_kept_raw_as_dead_and_is_a_duplicate_the_second_time(
    platform, endpoint, payload
):
    assert not intake.accept(platform, endpoint, event(payload=payload)).duplicate
    assert intake.accept(platform, endpoint, event(payload=payload)).duplicate
    assert not intake.accept(platform, endpoint, event(key="innocent")).duplicate
    assert stored(platform) == [("dead", "unstorable", True), ("received", None, False)]


def test_keys_too_long_for_an_index_are_shortened_and_still_tell_events_apart(platform, endpoint):
    long = "".join(sha256(str(number).encode()).hexdigest() for number in range(200))  # nothing to compress
    assert not intake.accept(platform, endpoint, event(key=long + "1", lane=long)).duplicate
    assert not intake.accept(platform, endpoint, event(key=long + "2", lane=long)).duplicate
    assert intake.accept(platform, endpoint, event(key=long + "1", lane=long)).duplicate
    assert stored(platform) == [("received", None, False)] * 2


def test_a_lane_that_stays_locked_is_a_database_that_did_not_commit_in_time_and_nothing_is_kept_twice(
    platform, endpoint
):
    intake.accept(platform, endpoint, event(key="first"))
    with platform.database.transaction(system=True) as session:
        session.execute(text("SELECT FROM lanes FOR UPDATE"))
        with pytest.raises(DatabaseUnavailable):
            intake.accept(platform, endpoint, event(key="second"))
    assert stored(platform) == [("received", None, False)]
    assert not intake.accept(platform, endpoint, event(key="second")).duplicate
