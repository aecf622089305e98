"""Readiness: each check passes on what works, and fails when what it speaks of is really broken."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import redis as redis_package
from cryptography.fernet import Fernet

from app import create_app
from app.config import Environment
from app.observability import sentry_check
from app.queue import QUEUE_NAME
from app.services import readiness
from app.services.readiness import CHECKS, house
from app.services.readiness.outcomes import Check, passed
from sandbox.ports import free_port
from tests.command_line import CommandLine
from tests.conftest import run_as_superuser
from tests.people import People
from workers.schedule import OnceScheduler, register

NAMES = [
    "Sentry Configuration",
    "Slack Alert System",
    "Error Count Tracking",
    "Error Reporting",
    "Environment Variables",
    "Database Connection",
    "Server Configuration",
    "Webhook Cleanup Job",
    "Idempotency Tables",
    "Circuit Breaker Module",
    "Twilio Integration",
    "Calendar Integration",
    "Webhook Queue System",
    "Job Schedulers",
    "Row-Level Security",
    "Vapi Integration",
    "Migration Head",
    "Encryption Keys",
    "Webhook Verification",
    "Clock",
    "Disk and Spool",
]
TOKEN, CHANNEL = "xoxb-1-abc", "C0123456789"


@pytest.fixture
def build(settings, world):
    """Make a platform with other settings, on the test's database."""
    made = []

    def make(**changes):
        platform = create_app(make_settings_like(settings, **changes)).extensions["platform"]
        made.append(platform)
        return platform

    yield make
    for platform in made:
        platform.close()


def make_settings_like(settings, **changes):
    return settings.model_copy(update=changes)


def check(platform, name: str) -> dict:
    """Run one check by its name."""
    (found,) = readiness.run(platform, tuple(one for one in CHECKS if one.name == name))["checks"]
    return found


def in_production(platform):
    platform.settings = platform.settings.model_copy(update={"environment": Environment.PRODUCTION})
    return platform


def status_in_both(platform, name: str) -> tuple[str, str]:
    """What a check says at a desk and in production."""
    return check(platform, name)["status"], check(in_production(platform), name)["status"]


@pytest.fixture
def owner(postgres, database_urls) -> Callable[[str], None]:
    """Run a statement as the superuser in the test's own database."""
    import psycopg2

    def run(statement: str) -> None:
        connection = psycopg2.connect(postgres.superuser_url(database_urls.name))
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement)
        finally:
            connection.close()

    return run


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


def test_the_report_has_all_names_in_order_a_score_and_nothing_fails_on_what_works(app, platform, people):
    found = CommandLine(app).data("readiness")
    assert [row["name"] for row in found["checks"]] == NAMES
    assert all(list(row) == ["name", "group", "status", "duration_ms", "reason", "fix"] for row in found["checks"])
    warned = {row["name"] for row in found["checks"] if row["status"] != "PASS"}
    assert warned == {
        "Sentry Configuration",
        "Slack Alert System",
        "Webhook Queue System",
        "Job Schedulers",
        "Vapi Integration",
    }
    assert all(row["status"] == "WARN" and row["fix"] for row in found["checks"] if row["name"] in warned)
    assert found["score"] == 100 * (15 + 5 / 2) / 20


def test_the_table_fits_a_terminal_and_markdown_is_a_table(app, platform, people):
    told = CommandLine(app).run("readiness")
    assert told.exit_code == 0
    assert max(len(line) for line in told.stdout.splitlines()) <= 100
    assert all(name in told.stdout for name in NAMES)
    markdown = CommandLine(app).run("readiness", "--markdown").stdout.splitlines()
    assert len([line for line in markdown if line.startswith("| ") and line.endswith(" |")]) == len(NAMES) + 1


def test_a_fail_makes_the_command_fail(app, platform, people, owner):
    owner("DROP INDEX ix_deliveries_lane")
    done = CommandLine(app).run("readiness", "--json")
    assert done.exit_code == 1
    assert [row["name"] for row in json.loads(done.stdout)["checks"] if row["status"] == "FAIL"] == [
        "Idempotency Tables"
    ]


def test_a_check_that_does_not_end_fails_and_holds_nothing_up(platform):
    hang = threading.Event()
    checks = (
        Check("hangs", "x", lambda _: (hang.wait(30), passed("late"))[1]),
        Check("works", "x", lambda _: passed("fine")),
    )
    try:
        found = readiness.run(platform, checks, limit_seconds=0.2)
    finally:
        hang.set()
    assert [row["status"] for row in found["checks"]] == ["FAIL", "PASS"]
    assert found["checks"][0]["reason"] == "it did not end within 0.2 s"


def test_a_check_that_raises_fails_without_saying_what_it_met(platform):
    def burst(_):
        raise RuntimeError("+4915112345678")

    (row,) = readiness.run(platform, (Check("bursts", "x", burst),))["checks"]
    assert row["status"] == "FAIL"
    assert "+49" not in json.dumps(row)


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
def test_slack_is_checked_for_its_token_both_scopes_and_its_channel(build, world, scopes, channel, status, told):
    if scopes is not None:
        world.slack_token(TOKEN, scopes)
    if channel != "none":
        world.slack_channel(CHANNEL, "alerts", archived=channel == "archived")
    platform = build(slack_bot_token=TOKEN, slack_alert_channel=CHANNEL)
    found = check(platform, "Slack Alert System")
    assert found["status"] == status
    assert told in found["reason"]
    assert bool(found["fix"]) == (status != "PASS")
    assert len(world.slack_posts()) == (status == "PASS")


def test_slack_half_configured_fails_twice_over(build):
    platform = build(slack_bot_token=TOKEN)
    assert check(platform, "Slack Alert System")["status"] == "FAIL"
    found = check(platform, "Environment Variables")
    assert (found["status"], found["fix"]) == ("FAIL", "Set SLACK_ALERT_CHANNEL too.")


def test_slack_that_does_not_answer_warns_at_a_desk_and_fails_in_production(build, world):
    world.slack_token(TOKEN)
    world.fault("slack", "error_500")
    platform = build(slack_bot_token=TOKEN, slack_alert_channel=CHANNEL)
    assert status_in_both(platform, "Slack Alert System") == ("WARN", "FAIL")


def test_an_error_is_counted_in_redis_and_with_redis_gone_that_is_told(build, own_valkey):
    platform = build(redis_url=own_valkey.url)
    assert check(platform, "Error Count Tracking")["status"] == "PASS"
    own_valkey.stop()
    assert status_in_both(platform, "Error Count Tracking") == ("WARN", "FAIL")


# --- the house --------------------------------------------------------------------------------


def test_production_says_which_settings_it_leaves_out(platform):
    found = check(in_production(platform), "Environment Variables")
    assert found["status"] == "FAIL"  # the stand-ins speak plain HTTP
    assert "TWILIO_API_BASE_URL" in found["reason"]


@pytest.mark.parametrize(("name", "value"), [("WEB_CONCURRENCY", "many"), ("WEB_CONCURRENCY", "40")])
def test_a_server_that_would_not_start_or_take_too_many_connections_fails(platform, monkeypatch, name, value):
    assert check(platform, "Server Configuration")["status"] == "PASS"
    monkeypatch.setenv(name, value)
    assert check(platform, "Server Configuration")["status"] == "FAIL"


def test_keys_that_open_nothing_fail_three_checks(build, people):
    platform = build(credentials_keys=[Fernet.generate_key().decode()])
    for name in ("Encryption Keys", "Twilio Integration", "Calendar Integration"):
        assert check(platform, name)["status"] == "FAIL"


def test_an_older_key_is_fine_and_told(build, people, settings):
    platform = build(credentials_keys=[Fernet.generate_key().decode(), *settings.credentials_keys])
    found = check(platform, "Encryption Keys")
    assert found["status"] == "PASS"
    assert "6 with an older key" in found["reason"]


def test_a_clock_that_is_away_fails(platform, monkeypatch):
    class Slow(house.datetime):
        @classmethod
        def now(cls, tz=None):
            return super().now(tz) - house_delay

    from datetime import timedelta

    house_delay = timedelta(seconds=3)
    assert check(platform, "Clock")["status"] == "PASS"
    monkeypatch.setattr(house, "datetime", Slow)
    assert check(platform, "Clock")["status"] == "FAIL"


def test_a_folder_that_cannot_be_written_fails(build, tmp_path):
    assert check(build(metrics_dir=str(tmp_path)), "Disk and Spool")["status"] == "PASS"
    found = check(build(metrics_dir=str(tmp_path / "gone")), "Disk and Spool")
    assert found["status"] == "FAIL"
    assert "METRICS_DIR" in found["reason"]
    assert os.listdir(tmp_path) == []


# --- the database -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "name"),
    [
        ("REVOKE DELETE ON webhook_delivery_log FROM voicedesk_system", "Webhook Cleanup Job"),
        ("DROP POLICY processed_webhook_events_system ON processed_webhook_events", "Webhook Cleanup Job"),
        ("DROP INDEX ix_deliveries_event", "Idempotency Tables"),
        ("ALTER TABLE messages DROP CONSTRAINT uq_messages_org_id_idempotency_key", "Idempotency Tables"),
        ("DROP POLICY webhook_delivery_log_intake_insert ON webhook_delivery_log", "Idempotency Tables"),
        ("ALTER TABLE calls NO FORCE ROW LEVEL SECURITY", "Row-Level Security"),
        (
            "DROP POLICY webhook_delivery_log_tenant ON webhook_delivery_log;"
            " CREATE POLICY webhook_delivery_log_tenant ON webhook_delivery_log TO voicedesk_tenant USING (true)",
            "Row-Level Security",
        ),
        ("GRANT SELECT ON webhook_delivery_log TO PUBLIC", "Row-Level Security"),
        ("UPDATE alembic_version SET version_num = '0001'", "Migration Head"),
    ],
)
def test_what_is_broken_in_the_database_is_found(platform, owner, statement, name):
    assert check(platform, name)["status"] == "PASS"
    owner(statement)
    found = check(platform, name)
    assert found["status"] == "FAIL"
    assert found["fix"]


def test_trials_leave_nothing_behind(platform):
    from sqlalchemy import text

    for name in ("Webhook Cleanup Job", "Idempotency Tables", "Row-Level Security"):
        assert check(platform, name)["status"] == "PASS"
    with platform.database.transaction(system=True) as session:
        for table in ("webhook_delivery_log", "processed_webhook_events", "lanes", "ledger_entries"):
            assert session.execute(text(f"SELECT count(*) FROM {table}")).scalar() == 0


def test_a_database_that_is_gone_fails_in_time(platform, postgres, database_urls):
    run_as_superuser(postgres, f"ALTER DATABASE {database_urls.name} ALLOW_CONNECTIONS false")
    run_as_superuser(
        postgres, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database_urls.name}'"
    )
    try:
        found = readiness.run(platform)
    finally:
        run_as_superuser(postgres, f"ALTER DATABASE {database_urls.name} ALLOW_CONNECTIONS true")
    failed = {row["name"] for row in found["checks"] if row["status"] == "FAIL"}
    assert {"Database Connection", "Migration Head", "Row-Level Security", "Clock"} <= failed
    assert max(row["duration_ms"] for row in found["checks"]) < 8500


# --- providers and work -----------------------------------------------------------------------


def test_the_breaker_is_shared_by_redis_and_a_redis_without_scripts_is_told(build, own_valkey):
    platform = build(redis_url=own_valkey.url)
    found = check(platform, "Circuit Breaker Module")
    assert (found["status"], found["reason"].endswith("shared by Redis")) == ("PASS", True)
    with redis_package.Redis.from_url(own_valkey.url) as client:
        assert list(client.scan_iter("voicedesk:circuit:readiness*")) == []
        client.execute_command("ACL", "SETUSER", "default", "-eval")
    assert status_in_both(platform, "Circuit Breaker Module") == ("WARN", "FAIL")


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


def test_vapi_is_asked_with_the_key(build, world):
    world.vapi_key("a-private-key")
    assert check(build(vapi_private_key="a-private-key"), "Vapi Integration")["status"] == "PASS"
    assert check(build(vapi_private_key="another"), "Vapi Integration")["status"] == "FAIL"
    world.fault("vapi", "error_500")
    assert status_in_both(build(vapi_private_key="a-private-key"), "Vapi Integration") == ("WARN", "FAIL")


def test_without_a_worker_the_probe_does_not_come_back(build, own_valkey):
    platform = build(redis_url=own_valkey.url)
    assert status_in_both(platform, "Webhook Queue System") == ("WARN", "FAIL")
    own_valkey.stop()
    assert status_in_both(platform, "Webhook Queue System")[1] == "FAIL"


def test_schedules_are_seen_with_their_next_run_and_a_dead_scheduler_is_found(build, own_valkey):
    platform = build(redis_url=own_valkey.url)
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
    import gzip

    return gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body
