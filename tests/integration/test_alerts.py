"""Alerts: a cause is told once when it begins and once when it ends, by whoever notices, whatever is away."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from app.config import Settings
from app.integrations.breaker import SLACK, TWILIO_SMS, circuits
from app.models import alerts as rows
from app.services import watch
from app.services.alert_causes import Cause, Look
from app.services.alerts import open_alerts
from app.services.platform import Platform
from sandbox.standins import RemoteWorld
from tests.command_line import CommandLine
from tests.conftest import Urls, make_settings
from tests.eventually import eventually

TOKEN, CHANNEL = "xoxb-of-the-tests", "C0123456789"
QUICK = {"watch_seconds": 0.05, "alert_window_seconds": 0, "slack_bot_token": TOKEN, "slack_alert_channel": CHANNEL}


@pytest.fixture
def settings(database_urls: Urls, world: RemoteWorld) -> Settings:
    world.slack_token(TOKEN)
    world.slack_channel(CHANNEL, "alerts")
    return make_settings(database_urls, world, **QUICK)


def told(world: RemoteWorld) -> list[str]:
    return [post["text"] for post in world.slack_posts()]


def break_circuit(name: str = TWILIO_SMS) -> None:
    circuit = circuits.get(name)
    for _ in range(3):
        circuit._failed("")


def execute(platform: Platform, statement: str, **values: Any) -> list[Any]:
    with platform.database.transaction(system=True) as session:
        result = session.execute(text(statement), values)
        return list(result.all()) if result.returns_rows else []


def note(platform: Platform, key: str = "error_rate", window: float = 300, **more: Any) -> None:
    with platform.database.transaction(system=True) as session:
        rows.note(session, key, kind=key.partition(":")[0], facts={}, window=timedelta(seconds=window), **more)


def end(platform: Platform, kind: str = "error_rate") -> None:
    with platform.database.transaction(system=True) as session:
        rows.end_gone(session, kinds=[kind], present=[])


def untold(platform: Platform) -> list[tuple[str, bool]]:
    """Keys, and whether the cause had ended; read as told."""
    with platform.database.transaction(system=True) as session:
        found = [(alert.key, alert.told_at is not None) for alert in rows.list_untold(session)]
        rows.mark_told(session, [key for key, ended in found if not ended])
        rows.mark_end_told(session, [key for key, ended in found if ended])
    return found


# --- the life of an alert ----------------------------------------------------------------------


def test_a_cause_is_told_at_its_beginning_and_at_its_end_and_not_between(platform):
    for _ in range(3):
        note(platform)
    assert untold(platform) == [("error_rate", False)]
    note(platform)
    assert untold(platform) == []
    end(platform)
    assert untold(platform) == [("error_rate", True)]
    assert untold(platform) == []


def test_a_cause_that_flaps_is_told_again_only_when_it_outlasts_the_window(platform):
    note(platform)
    untold(platform)
    end(platform)
    untold(platform)
    for _ in range(3):
        note(platform, window=300)
        end(platform)
    assert untold(platform) == []
    note(platform, window=300)
    assert [alert.key for alert in open_alerts(platform)] == ["error_rate"]
    note(platform, window=0)
    assert untold(platform) == [("error_rate", False)]
    end(platform)
    assert untold(platform) == [("error_rate", True)]


def test_a_cause_that_is_back_before_its_end_was_told_has_not_ended(platform):
    note(platform)
    untold(platform)
    end(platform)
    note(platform)
    assert untold(platform) == []
    end(platform)
    assert untold(platform) == [("error_rate", True)]


def test_one_of_many_processes_that_notice_at_once_begins_an_alert(platform):
    start = threading.Barrier(8)

    def notice() -> None:
        start.wait(timeout=10)
        for key in ("circuit_open:a", "error_rate", "redis_lost"):
            note(platform, key)

    threads = [threading.Thread(target=notice) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert [key for key, _ in untold(platform)].count("redis_lost") == 1
    assert len(open_alerts(platform)) == 3


def test_news_of_a_time_that_is_over_begin_nothing(platform):
    note(platform, "database_lost")
    untold(platform)
    end(platform, "database_lost")
    untold(platform)
    ((began_at,),) = execute(platform, "SELECT began_at FROM alerts")
    note(platform, "database_lost", window=0, began_at=began_at, told_at=began_at)
    assert open_alerts(platform) == []
    assert untold(platform) == []


# --- looking and telling -----------------------------------------------------------------------


def test_an_opened_circuit_is_told_once_and_its_closing_once(platform, world):
    break_circuit()
    for _ in range(3):
        platform.watcher.tick()
    (post,) = world.slack_posts()
    assert post["text"] == ":red_circle: Circuit twilio_sms is open"
    assert [block["type"] for block in post["blocks"]] == ["header", "section", "section", "section", "context"]
    assert "flask --app wsgi circuits" in str(post["blocks"])
    assert "operations.md#circuit-open" in str(post["blocks"])
    circuits.reset(TWILIO_SMS)
    execute(platform, "UPDATE alerts SET seen_at = seen_at - interval '1 minute'")
    for _ in range(3):
        platform.watcher.tick()
    assert told(world)[1:] == [":white_check_mark: Circuit twilio_sms is closed"]


def test_a_circuit_that_another_process_sees_open_is_not_over_because_this_ones_copy_is_older(
    database_urls, world, valkey
):
    world.slack_token(TOKEN)
    platform = Platform(make_settings(database_urls, world, **QUICK, redis_url=valkey.url))
    try:
        circuits.reset()
        for _ in range(3):
            platform.watcher.tick()
        note(platform, "circuit_open:twilio_sms")
        platform.watcher.tick()
        assert [alert.key for alert in open_alerts(platform)] == ["circuit_open:twilio_sms"]
        execute(platform, "UPDATE alerts SET seen_at = now() - interval '5 seconds'")
        platform.watcher.tick()
        assert open_alerts(platform) == []
    finally:
        platform.close()


def test_two_processes_tell_once_and_the_second_takes_over_when_the_first_stops(platform, world, another):
    other = another()
    break_circuit()
    platform.watcher.start()
    eventually(lambda: told(world))
    other.watcher.start()
    circuits.reset(TWILIO_SMS)
    break_circuit()
    platform.watcher.stop()
    circuits.reset(TWILIO_SMS)
    eventually(lambda: len(told(world)) == 2, seconds=20)
    other.watcher.stop()
    assert told(world) == [":red_circle: Circuit twilio_sms is open", ":white_check_mark: Circuit twilio_sms is closed"]


def test_a_watcher_that_is_told_to_stop_takes_no_further_look(platform, monkeypatch):
    looks: list[str] = []
    begun, may_end = threading.Event(), threading.Event()

    def long(_: Platform) -> list[Cause]:
        looks.append("long")
        begun.set()
        may_end.wait(10)
        return []

    def next_one(_: Platform) -> list[Cause]:
        looks.append("next")
        return []

    both = (Look(frozenset({"error_rate"}), long), Look(frozenset({"dead_letters"}), next_one))
    monkeypatch.setattr(watch, "SHARED", both)
    platform.watcher.start()
    assert begun.wait(20)
    stopping = threading.Thread(target=platform.watcher.stop)
    stopping.start()
    eventually(platform.watcher._stopping.is_set)
    may_end.set()
    stopping.join(10)
    assert looks == ["long"]


def test_an_organizations_name_can_neither_call_everybody_nor_link(platform, people, world):
    with platform.database.transaction(system=True) as session:
        session.execute(
            text("UPDATE organizations SET name = '<!channel> & Co' WHERE id = :id"), {"id": people.salon.id}
        )
        rows.note(
            session,
            f"credentials_refused:{people.salon.id}:twilio",
            kind="credentials_refused",
            facts={"org_id": str(people.salon.id), "provider": "twilio"},
            window=timedelta(0),
        )
    execute(platform, "UPDATE alerts SET seen_at = now()")
    platform.watcher._tell()
    (post,) = world.slack_posts()
    assert "<!channel>" not in str(post)
    assert "&lt;!channel&gt; &amp; Co" in str(post["blocks"])
    assert str(people.salon.id) in str(post["blocks"])


def test_what_slack_throttled_is_told_when_its_time_has_come_and_not_before(platform, world):
    world.fault("slack", "throttle_429", times=1, retry_after=2)
    break_circuit()
    platform.watcher.tick()
    platform.watcher.tick()
    assert len(world.requests("slack")) == 1
    assert [alert.told_at for alert in open_alerts(platform)] == [None]
    eventually(lambda: platform.watcher.tick() or told(world), seconds=10)
    first, second = (request["at"] for request in world.requests("slack", "post_message"))
    assert second > first
    assert len(told(world)) == 1


def test_a_post_whose_answer_was_lost_is_not_repeated_at_once(platform, world):
    world.fault("slack", "cut_after", times=1)
    break_circuit()
    for _ in range(3):
        platform.watcher.tick()
    assert len(told(world)) == 1
    assert platform.watcher._teller.silent


def test_many_at_once_are_one_message(platform, world):
    for number in range(7):
        note(platform, f"circuit_open:{number}")
    platform.watcher._tell()
    assert told(world) == ["7 alerts began"]
    end(platform, "circuit_open")
    platform.watcher._tell()
    assert told(world)[1:] == ["7 alerts ended"]


def test_slacks_own_outage_is_told_when_it_is_over(platform, world, monkeypatch):
    monkeypatch.setattr(circuits, "open_seconds", 3.0)  # longer than a busy machine takes for a look
    break_circuit(SLACK)
    platform.watcher.tick()
    assert told(world) == []
    eventually(lambda: [state.state for state in circuits.states() if state.name == SLACK] == ["half_open"])
    eventually(lambda: platform.watcher.tick() or told(world), seconds=15)
    assert told(world)[0] == ":red_circle: Circuit slack is open"


def test_without_slack_it_is_in_the_log_once(another, platform, capfd):
    quiet = another(slack_bot_token=None)
    break_circuit()
    for _ in range(3):
        quiet.watcher.tick()
    lines = [line for line in capfd.readouterr().err.splitlines() if '"alert.began"' in line]
    assert len(lines) == 1
    assert "circuit_open:twilio_sms" in lines[0]
    assert open_alerts(quiet)[0].told_at is not None


def test_a_look_that_fails_ends_nothing_and_blinds_nobody(platform, world, monkeypatch):
    monkeypatch.setattr(platform, "error_counts", None)
    note(platform)
    break_circuit()
    platform.watcher.tick()
    assert {alert.kind for alert in open_alerts(platform)} == {"error_rate", "circuit_open"}


def test_open_alerts_can_be_listed(app, platform):
    note(platform, "circuit_open:vapi")
    (listed,) = CommandLine(app).data("alerts", "list")
    assert (listed["key"], listed["told_at"]) == ("circuit_open:vapi", None)
