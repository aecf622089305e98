"""Circuits seen and reset by hand, and how many failures open one."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from app import create_app
from app.integrations.breaker import TWILIO_SMS, VAPI, Circuits, circuits
from app.models.inbox import NewDelivery
from app.models.inbox import insert_own_work as plan
from app.redis import RedisLink
from tests.circuits import Provider, state_of, wait_for
from tests.command_line import CommandLine


@pytest.fixture
def shared(settings, own_valkey, people):
    """An application with Redis, whose circuits stay open for long and open after two failures."""
    changes = {"redis_url": own_valkey.url, "circuit_open_seconds": 60, "circuit_failures": 2}
    app = create_app(settings.model_copy(update=changes))
    yield app
    app.extensions["platform"].close()
    circuits.close()


def test_the_setting_says_how_many_failures_open_a_circuit_for_all(shared, own_valkey):
    provider = Provider(circuits)
    provider.fail(1)
    assert state_of(circuits) == "closed"
    provider.fail(1)
    assert state_of(circuits) == "open"
    shown = {row["name"]: row for row in CommandLine(shared).data("circuits")}
    assert shown[VAPI]["state"] == "open"
    assert (shown[VAPI]["failures"], shown[VAPI]["opens_after"]) == (2, 2)
    assert 50 < shown[VAPI]["retry_after_seconds"] <= 60
    assert shown[TWILIO_SMS]["state"] == "closed"


def test_a_reset_reaches_the_other_processes_and_wakes_what_waited(shared, own_valkey, people):
    platform = shared.extensions["platform"]
    other = Circuits()
    other.connect(RedisLink(own_valkey.url), 60, failures=2)
    Provider(circuits).fail(2)
    wait_for(lambda: state_of(other) != "closed")
    with platform.database.transaction(people.salon.id) as session:
        plan(
            session,
            [
                NewDelivery(
                    org_id=people.salon.id,
                    provider="voicedesk",
                    type="message.check",
                    event_key="waits",
                    lane_key="waits",
                    payload={},
                )
            ],
        )
    with platform.database.transaction(system=True) as session:
        session.execute(
            text("UPDATE webhook_delivery_log SET waiting_on = 'vapi', next_attempt_at = now() + interval '1 hour'")
        )
    rows = {row["name"]: row for row in CommandLine(shared).data("circuits", "--reset", VAPI)}
    assert (rows[VAPI]["state"], rows[VAPI]["woken"], rows[TWILIO_SMS]["woken"]) == ("closed", 1, None)
    wait_for(lambda: state_of(other) == "closed")
    other.close()


def test_all_are_reset_at_once(shared):
    for name in (VAPI, TWILIO_SMS):
        Provider(circuits, name).fail(2)
    assert {row["state"] for row in CommandLine(shared).data("circuits", "--reset-all")} == {"closed"}


def test_where_the_others_cannot_be_reached_that_is_said_and_nothing_is_guessed(app, platform, shared, own_valkey):
    assert CommandLine(app).refusal("circuits")["code"] == "invalid_input"
    own_valkey.stop()
    assert CommandLine(shared).refusal("circuits", "--reset-all")["code"] == "temporary"
