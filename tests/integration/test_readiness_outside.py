"""Readiness towards Sentry, Slack, providers, Redis and workers: each check fails when what it asks is really away."""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import redis as redis_package

from app import create_app
from app.integrations.breaker import Circuits
from app.observability import sentry_check
from app.queue import QUEUE_NAME
from app.services.readiness import providers
from sandbox.ports import free_port
from tests.command_line import CommandLine
from tests.people import People
from tests.readiness import check, status_in_both
from workers.schedule import OnceScheduler, register

TOKEN, CHANNEL = "xoxb-1-abc", "C0123456789"


class SentryStandIn(BaseHTTPRequestHandler):
    """Takes what the SDK posts, or answers with ``status``."""

    status = 200
    bodies: list[bytes] = []

    def do_POST(self) -> None:
        type(self).bodies.append(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""


@pytest.fixture
def sentry() -> Iterator[tuple[str, type[SentryStandIn]]]:
    """A DSN whose project takes reports, and the handler that counts them."""
    handler = type("Handler", (SentryStandIn,), {"bodies": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://publickey@127.0.0.1:{server.server_port}/7", handler
    server.shutdown()
    server.server_close()


# --- monitoring -------------------------------------------------------------------------------


def test_sentry_configuration_wants_a_dsn_and_a_release(platform):
    platform.settings = platform.settings.model_copy(update={"sentry_dsn": "https://nonsense", "release": "1"})
    assert check(platform, "Sentry Configuration")["status"] == "FAIL"
    platform.settings = platform.settings.model_copy(update={"sentry_dsn": "https://k@sentry.test/1", "release": None})
    assert check(platform, "Sentry Configuration")["status"] == "WARN"
    platform.settings = platform.settings.model_copy(update={"release": "1.2"})
    assert check(platform, "Sentry Configuration")["status"] == "PASS"


def test_without_sentry_a_report_is_made_and_one_with_personal_data_in_it_fails(platform, monkeypatch):
    found = check(platform, "Error Reporting")
    assert (found["status"], "without personal data" in found["reason"]) == ("PASS", True)
    monkeypatch.setattr(sentry_check, "scrub", lambda event, _hint: event)
    assert check(platform, "Error Reporting")["status"] == "FAIL"


def test_error_reporting_passes_when_sentry_takes_a_report_and_fails_in_production_when_it_does_not(platform, sentry):
    dsn, handler = sentry
    platform.settings = platform.settings.model_copy(update={"sentry_dsn": dsn})
    assert check(platform, "Error Reporting")["status"] == "PASS"
    assert len(handler.bodies) == 1
    handler.status = 401
    found = check(platform, "Error Reporting")
    assert (found["status"], found["reason"]) == ("WARN", "Sentry answered with HTTP 401")
    nobody = f"http://publickey@127.0.0.1:{free_port()}/7"
    platform.settings = platform.settings.model_copy(update={"sentry_dsn": nobody})
    assert status_in_both(platform, "Error Reporting") == ("WARN", "FAIL")


@pytest.mark.parametrize(
    ("scopes", "channel", "status", "told"),
    [
        (["chat:write", "chat:write.public"], "open", "PASS", "a marked message is in the channel"),
        (["chat:write"], "open", "FAIL", "the token lacks chat:write.public"),
        (["chat:write.public"], "open", "FAIL", "the token lacks chat:write"),
        (["chat:write", "chat:write.public"], "archived", "FAIL", "SLACK_ALERT_CHANNEL: "),
        (["chat:write", "chat:write.public"], "none", "FAIL", "SLACK_ALERT_CHANNEL: "),
        (None, "open", "FAIL", "Slack refused the bot's token"),
    ],
)
def test_slack_is_checked_for_its_token_both_scopes_and_its_channel(another, world, scopes, channel, status, told):
    if scopes is not None:
        world.slack_token(TOKEN, scopes)
    if channel != "none":
        world.slack_channel(CHANNEL, "alerts", archived=channel == "archived")
    platform = another(slack_bot_token=TOKEN, slack_alert_channel=CHANNEL)
    found = check(platform, "Slack Alert System")
    assert found["status"] == status
    assert told in found["reason"]
    assert bool(found["fix"]) == (status != "PASS")
    assert len(world.slack_posts()) == (status == "PASS")


def test_slack_half_configured_fails_twice_over(another):
    platform = another(slack_bot_token=TOKEN)
    assert check(platform, "Slack Alert System")["status"] == "FAIL"
    found = check(platform, "Environment Variables")
    assert (found["status"], found["fix"]) == ("FAIL", "Set SLACK_ALERT_CHANNEL too.")


def test_slack_that_does_not_answer_warns_at_a_desk_and_fails_in_production(another, world):
    world.slack_token(TOKEN)
    world.fault("slack", "error_500")
    platform = another(slack_bot_token=TOKEN, slack_alert_channel=CHANNEL)
    assert status_in_both(platform, "Slack Alert System") == ("WARN", "FAIL")


def test_an_error_is_counted_in_redis_and_with_redis_gone_that_is_told(another, own_valkey):
    platform = another(redis_url=own_valkey.url)
    assert check(platform, "Error Count Tracking")["status"] == "PASS"
    own_valkey.stop()
    assert status_in_both(platform, "Error Count Tracking") == ("WARN", "FAIL")


# --- providers and work -----------------------------------------------------------------------


def test_the_breaker_is_shared_by_redis_and_a_redis_without_scripts_is_told(another, own_valkey):
    platform = another(redis_url=own_valkey.url)
    found = check(platform, "Circuit Breaker Module")
    assert (found["status"], found["reason"].endswith("shared by Redis")) == ("PASS", True)
    with redis_package.Redis.from_url(own_valkey.url) as client:
        assert list(client.scan_iter("voicedesk:circuit:readiness*")) == []
        client.execute_command("ACL", "SETUSER", "default", "-eval")
    assert status_in_both(platform, "Circuit Breaker Module") == ("WARN", "FAIL")


def test_a_machine_that_is_too_busy_to_see_a_circuit_open_is_given_more_time(platform, monkeypatch):
    real, looks = Circuits.refresh, []

    def look_late(circuits: Circuits) -> None:
        looks.append(time.sleep(0.4))
        real(circuits)

    monkeypatch.setattr(Circuits, "refresh", look_late)
    assert check(platform, "Circuit Breaker Module")["status"] == "PASS"
    assert len(looks) > 1
    monkeypatch.setattr(providers, "OPEN_SECONDS", (0.2, 0.3))
    assert check(platform, "Circuit Breaker Module")["status"] == "WARN"


@pytest.mark.parametrize(("provider", "name"), [("twilio", "Twilio Integration"), ("google", "Calendar Integration")])
def test_a_provider_that_does_not_answer_warns_at_a_desk_and_fails_in_production(
    platform, people, world, provider, name
):
    assert check(platform, name)["status"] == "PASS"
    world.fault(provider, "error_500")
    assert status_in_both(platform, name) == ("WARN", "FAIL")


def test_credentials_that_twilio_refuses_fail_and_name_the_organization(platform, people: People, world):
    world.twilio_account(people.salon.account_sid, "another-token-than-before", numbers=[people.salon.number])
    found = check(platform, "Twilio Integration")
    assert found["status"] == "FAIL"
    assert str(people.salon.id) in found["reason"]


def test_a_calendar_that_google_no_longer_lets_us_see_fails(platform, people, world, settings):
    world.reset()
    assert check(platform, "Calendar Integration")["status"] == "FAIL"


def test_vapi_is_asked_with_the_key(another, world):
    world.vapi_key("a-private-key")
    assert check(another(vapi_private_key="a-private-key"), "Vapi Integration")["status"] == "PASS"
    assert check(another(vapi_private_key="another"), "Vapi Integration")["status"] == "FAIL"
    world.fault("vapi", "error_500")
    assert status_in_both(another(vapi_private_key="a-private-key"), "Vapi Integration") == ("WARN", "FAIL")


def test_without_a_worker_the_probe_does_not_come_back(another, own_valkey):
    platform = another(redis_url=own_valkey.url)
    assert status_in_both(platform, "Webhook Queue System") == ("WARN", "FAIL")
    own_valkey.stop()
    assert status_in_both(platform, "Webhook Queue System")[1] == "FAIL"


def test_schedules_are_seen_with_their_next_run_and_a_dead_scheduler_is_found(another, own_valkey):
    platform = another(redis_url=own_valkey.url)
    assert check(platform, "Job Schedulers")["status"] == "WARN"
    with redis_package.Redis.from_url(own_valkey.url) as client:
        scheduler = OnceScheduler(queue_name=QUEUE_NAME, connection=client, interval=1)
        register(scheduler)
        found = check(platform, "Job Schedulers")
        assert found["status"] == "PASS"
        assert "04:00:00Z" in found["reason"]
        client.zadd(scheduler.scheduled_jobs_key, {"voicedesk-sweep": 1_000_000_000})
        assert "overdue: voicedesk-sweep" in check(platform, "Job Schedulers")["reason"]
        register(scheduler)
        client.zadd(scheduler.scheduled_jobs_key, {"voicedesk-sweep": 9e9, "voicedesk-old": 9e9})
        assert check(platform, "Job Schedulers")["status"] == "FAIL"


# --- monitoring verify ------------------------------------------------------------------------


def test_monitoring_verify_says_what_arrived(settings, world, sentry, valkey):
    dsn, handler = sentry
    world.slack_token(TOKEN)
    world.slack_channel(CHANNEL, "alerts")
    changes = {
        "redis_url": valkey.url,
        "slack_bot_token": TOKEN,
        "slack_alert_channel": CHANNEL,
    }
    app = create_app(settings.model_copy(update=changes))
    platform = app.extensions["platform"]
    platform.settings = platform.settings.model_copy(update={"sentry_dsn": dsn})
    try:
        found = CommandLine(app).data("monitoring", "verify")
        assert [(row["channel"], row["result"]) for row in found] == [
            ("error counts", "arrived"),
            ("Sentry", "arrived"),
            ("Slack", "arrived"),
        ]
        (post,) = world.slack_posts()
        assert post["ts"] in found[2]["told"]
        assert found[1]["told"].split()[1].encode() in b"".join(map(_inflated, handler.bodies))
        world.slack_channel(CHANNEL, "alerts", archived=True)
        handler.status = 403
        done = CommandLine(app).run("monitoring", "verify", "--json")
        assert done.exit_code == 1
        failed = {row["channel"]: row for row in json.loads(done.stdout) if row["result"] == "failed"}
        assert set(failed) == {"Sentry", "Slack"}
        assert all(row["fix"] for row in failed.values())
    finally:
        platform.close()


def test_monitoring_verify_without_channels_is_no_failure(app, platform):
    found = CommandLine(app).data("monitoring", "verify")
    assert [row["result"] for row in found] == ["arrived", "not configured", "not configured"]


def _inflated(body: bytes) -> bytes:
    return gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body
