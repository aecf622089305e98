"""What raises an alert: each cause made to happen in the tables, in the books or in a provider, and mended again."""

from __future__ import annotations

import time
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text

from app.config import Settings
from app.observability import errors
from app.services import alert_texts, canary, replay, watch
from app.services.alerts import open_alerts
from app.services.canary import CanaryReport
from app.services.messages import plan_text
from app.services.platform import Platform
from sandbox.standins import RemoteWorld
from tests.conftest import Urls, make_settings
from tests.eventually import eventually
from tests.integration.api import Program

ADA = "+4915112345678"


@pytest.fixture
def settings(database_urls: Urls, world: RemoteWorld, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(watch, "SETTLING_SECONDS", 0.0)
    return make_settings(
        database_urls,
        world,
        watch_seconds=0.05,
        alert_window_seconds=0,
        error_rate_limit=3,
        webhook_quota_per_hour=10,
        api_quota_per_hour=10,
        canary_seconds=3600,
    )


def look(platform: Platform, *, times: int = 2) -> dict[str, dict[str, Any]]:
    """The open alerts by key, with their facts, after looking so often."""
    for _ in range(times):
        platform.watcher.tick()
    return {alert.key: alert.facts for alert in open_alerts(platform)}


def execute(platform: Platform, statement: str, *, org: Any = None, **values: Any) -> None:
    how: dict[str, Any] = {"org_id": org} if org else {"system": True}
    with platform.database.transaction(**how) as session:
        session.execute(text(statement), values)


def plan(platform: Platform, org_id: Any, key: str = "k1", to: str = ADA) -> None:
    with platform.database.transaction(org_id) as session:
        plan_text(session, org_id, to=to, body="hello", channel="sms", idempotency_key=key, purpose="test")


def test_a_healthy_house_has_nothing_to_tell(platform, people):
    assert look(platform, times=3) == {}


def test_a_dead_letter_is_an_alert_until_it_is_replayed(platform, people, world, settle):
    world.twilio_recipient(ADA, refuse=21211)
    plan(platform, people.salon.id)
    dead = "SELECT id FROM webhook_delivery_log WHERE status = 'dead'"

    def ids() -> list[int]:
        with platform.database.transaction(system=True) as session:
            return [row.id for row in session.execute(text(dead))]

    settle(ids)
    (found,) = look(platform).items()
    assert found[0].startswith("dead_letters:voicedesk:message.send:")
    assert (found[1]["count"], found[1]["delivery_ids"]) == (1, ids())
    assert ADA not in str(found)
    replay.replay(platform, ids()[0], actor="test")
    assert look(platform) == {}


def test_a_text_to_somebody_who_wants_none_is_nobodys_trouble(platform, people, world, settle):
    world.opt_out(ADA)
    plan(platform, people.salon.id)
    unfinished = "SELECT 1 FROM webhook_delivery_log WHERE finished_at IS NULL AND type = 'message.send'"

    def done() -> bool:
        with platform.database.transaction(system=True) as session:
            return session.execute(text(unfinished)).first() is None

    settle(done)
    assert look(platform) == {}


def test_refused_credentials_are_an_alert_of_one_organization_until_they_are_accepted(platform, people, world, settle):
    world.twilio_account(people.salon.account_sid, "another-token", numbers=[people.salon.number])
    plan(platform, people.salon.id)
    plan(platform, people.dental.id)
    key = f"credentials_refused:{people.salon.id}:twilio"
    settle(lambda: key in look(platform, times=1))
    assert set(look(platform)) == {key}
    world.twilio_account(people.salon.account_sid, people.salon.auth_token, numbers=[people.salon.number])
    execute(platform, "UPDATE webhook_delivery_log SET next_attempt_at = now() WHERE waiting_on IS NOT NULL")
    execute(platform, "UPDATE lanes SET due_at = now() WHERE token IS NULL")
    settle(lambda: look(platform, times=1) == {})


def test_a_channel_that_lapses_is_an_alert_until_a_later_one_is_there(platform, people):
    with platform.database.transaction(people.salon.id) as session:
        (integration,) = session.execute(text("SELECT id FROM integrations WHERE provider = 'google-calendar'")).one()

    def note(channel: str, hours: float) -> None:
        execute(
            platform,
            "INSERT INTO calendar_channels (org_id, integration_id, channel_id, resource_id, expires_at)"
            " VALUES (:organization, :integration, :channel, 'resource', now() + make_interval(hours => :hours))",
            org=people.salon.id,
            organization=people.salon.id,
            integration=integration,
            channel=channel,
            hours=hours,
        )

    note("first", 48)
    assert look(platform) == {}
    execute(platform, "UPDATE calendar_channels SET expires_at = now() + interval '5 hours'", org=people.salon.id)
    (key,) = look(platform)
    assert key == f"calendar_channel_lapsing:{integration}:resource"
    note("second", 100)
    assert look(platform) == {}


def test_texts_whose_fate_is_unknown_for_long_are_an_alert(platform, people):
    execute(
        platform,
        "INSERT INTO messages (id, org_id, direction, channel, remote_address, body, status, sending_since)"
        " VALUES (:id, :organization, 'outbound', 'sms', :to, 'hello', 'unknown', now() - interval '11 minutes')",
        org=people.salon.id,
        id=uuid4(),
        organization=people.salon.id,
        to=ADA,
    )
    (found,) = look(platform).items()
    assert found[0] == f"message_unknown:{people.salon.id}"
    assert ADA not in str(found)
    execute(platform, "UPDATE messages SET status = 'sent'", org=people.salon.id)
    assert look(platform) == {}


def test_what_was_set_aside_is_an_alert_until_it_ends(platform, people):
    plan(platform, people.salon.id)
    for table in ("webhook_delivery_log", "lanes"):
        execute(platform, f"UPDATE {table} SET lane_key = 'm:aside:1'")
    assert set(look(platform)) == {"delivery_set_aside:voicedesk:message.send"}


def test_an_event_that_is_due_and_not_taken_is_an_alert_at_the_second_look(platform, people):
    plan(platform, people.salon.id)
    execute(platform, "UPDATE lanes SET due_at = now() - interval '2 minutes'")
    assert look(platform, times=1) == {}
    (found,) = look(platform, times=1).items()
    assert found[0] == "oldest_waiting"
    assert found[1]["waiting_seconds"] >= 120


def test_right_after_a_start_old_work_is_no_alert(platform, people, monkeypatch):
    monkeypatch.setattr(platform.watcher, "_settled_at", time.monotonic() + 60)
    plan(platform, people.salon.id)
    execute(platform, "UPDATE lanes SET due_at = now() - interval '2 minutes'")
    assert look(platform, times=4) == {}


def test_who_takes_over_the_watch_ends_nothing_that_is_still_wrong(platform, people, another):
    plan(platform, people.salon.id)
    execute(platform, "UPDATE lanes SET due_at = now() - interval '2 minutes'")
    assert set(look(platform)) == {"oldest_waiting"}
    platform.watcher.stop()
    successor = another()
    successor.watcher._settled_at = time.monotonic() + 60  # it has just begun, and is not sure of anything
    assert set(look(successor, times=1)) == {"oldest_waiting"}
    execute(platform, "UPDATE lanes SET due_at = now()")
    assert look(successor, times=1) == {}


def test_idle_workers_stay_an_alert_although_the_watcher_is_new_and_redis_too(platform, monkeypatch):
    idle = CanaryReport(None, None, None, by="web", missed=False, workers_idle=True)
    monkeypatch.setattr(canary, "look", lambda _: idle)
    watching = platform.watcher
    watching._redis.saw(there=True)
    monkeypatch.setattr(watching._redis, "lasts", lambda seconds=0.0: True)
    assert set(look(platform)) == {"workers_idle"}
    monkeypatch.setattr(watching._redis, "lasts", lambda seconds=0.0: seconds == 0.0)
    assert set(look(platform)) == {"workers_idle"}
    execute(platform, "DELETE FROM alerts")
    assert look(platform) == {}


def test_books_that_do_not_balance_are_an_alert_at_the_second_look(platform, people):
    plan(platform, people.salon.id)
    execute(platform, "DELETE FROM webhook_delivery_log WHERE type = 'message.send'")
    assert look(platform, times=1) == {}
    assert look(platform, times=1)["ledger_broken"]["difference"] == 1


def test_more_errors_than_the_limit_are_an_alert_that_names_the_commonest(platform):
    for _ in range(3):
        errors.count("web:KeyError")
    assert look(platform) == {}
    errors.count("web:ValueError")
    assert look(platform) == {
        "error_rate": {"errors": 4, "limit": 3, "kinds": ["web:KeyError (3)", "web:ValueError (1)"]}
    }


def test_what_is_counted_in_redis_is_not_over_because_redis_is_away(another, own_valkey, monkeypatch):
    monkeypatch.setattr(watch, "LOOKS_TO_BE_SURE", 1)
    platform = another(redis_url=own_valkey.url)
    monkeypatch.setattr(platform.error_counts, "total", lambda minutes: 4)
    assert set(look(platform)) == {"error_rate"}
    monkeypatch.setattr(platform.error_counts, "total", lambda minutes: 0)  # as this process alone has counted
    own_valkey.stop()
    assert set(look(platform)) == {"error_rate", "redis_lost"}
    own_valkey.start()
    eventually(lambda: look(platform, times=1) == {})


def test_webhooks_at_90_and_at_100_percent_of_the_quota_are_two_alerts(platform, people, client):
    def arrive(number: int) -> None:
        message = {"type": "status-update", "status": "in-progress", "call": {"id": f"c{number}"}}
        assert people.salon.vapi(client, message).status_code == 200

    for number in range(8):
        arrive(number)
    assert look(platform) == {}
    arrive(8)
    near, reached = (f"webhook_quota_{what}:{people.salon.id}" for what in ("near", "reached"))
    assert set(look(platform)) == {near}
    arrive(9)
    assert set(look(platform)) == {near, reached}


def test_api_requests_at_90_and_at_100_percent_of_the_quota_are_two_alerts_until_it_is_raised(app, platform, people):
    program = Program(app, people.salon.id)
    near, reached = (f"api_quota_{what}:{people.salon.id}" for what in ("near", "reached"))
    for number, alerts in ((8, set()), (1, {near}), (1, {near, reached}), (1, {near, reached})):
        for _ in range(number):
            program.get("/calls")
        assert set(look(platform)) == alerts
    execute(platform, "UPDATE organizations SET api_quota_per_hour = 100 WHERE id = :id", id=people.salon.id)
    eventually(lambda: program.get("/calls").headers["RateLimit-Limit"] == "100", seconds=7)
    assert look(platform) == {}


def test_canaries_of_which_none_comes_through_are_an_alert_at_the_second_look_until_one_does(platform, settle):
    canary.tend(platform)
    execute(platform, "UPDATE webhook_delivery_log SET received_at = now() - interval '3 hours'")
    assert look(platform, times=1) == {}
    assert set(look(platform, times=1)) == {"canary_missed"}
    settle(lambda: not canary.look(platform).missed)
    assert look(platform) == {}


def test_every_kind_has_its_section_in_the_guide_and_every_section_its_kind():
    from tests.e2e.house import ROOT

    guide = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    sections = {line.removeprefix("## ") for line in guide.splitlines() if line.startswith("## ")}
    assert sections - {"How alerts work"} == {alert_texts.anchor(kind) for kind in alert_texts.WORDINGS}


def test_every_kind_that_can_be_looked_for_has_its_words():
    from app.services.alert_causes import SHARED, Steadiness, canary_look

    looked_for = {kind for look in (*SHARED, canary_look(Steadiness())) for kind in look.kinds}
    local = {"database_lost", "redis_lost", "limiter_cannot_count", "circuit_open", "spool_failing", "spool_not_empty"}
    assert looked_for | local == set(alert_texts.WORDINGS)


def test_a_limiter_that_redis_refuses_is_an_alert_although_redis_answers(platform, own_valkey):
    import redis

    other = Platform(platform.settings.model_copy(update={"redis_url": own_valkey.url}))
    try:
        assert look(other, times=1) == {}
        client = redis.Redis.from_url(own_valkey.url)
        client.config_set("maxmemory", 1)
        assert set(look(other, times=1)) == {"limiter_cannot_count"}
        client.config_set("maxmemory", 0)
        client.close()
        with platform.database.transaction(system=True) as session:
            session.execute(text("UPDATE alerts SET seen_at = now() - interval '1 minute'"))
        eventually(lambda: look(other, times=1) == {}, seconds=15)
    finally:
        other.close()
