"""Readiness: the report, and each check of the house and its database failing when that is really broken."""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections.abc import Callable

import psycopg2
import pytest
from cryptography.fernet import Fernet
from sqlalchemy import text

from app.cli import goes_on_without_settings, without_platform
from app.services import readiness
from app.services.readiness import house
from app.services.readiness.outcomes import Check, passed
from tests.command_line import CommandLine
from tests.conftest import run_as_superuser
from tests.readiness import check, in_production

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


@pytest.fixture
def owner(postgres, database_urls) -> Callable[[str], None]:
    """Run a statement as the superuser in the test's own database."""

    def run(statement: str) -> None:
        connection = psycopg2.connect(postgres.superuser_url(database_urls.name))
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement)
        finally:
            connection.close()

    return run


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
    assert found["score"] == round(100 * (len(NAMES) - len(warned) / 2) / len(NAMES), 1)


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


def test_with_settings_that_let_nothing_start_there_is_a_report_all_the_same(monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "")
    monkeypatch.setenv("MAX_WEBHOOK_BYTES", "many")
    done = CommandLine(without_platform()).run("readiness", "--json")
    found = json.loads(done.stdout)
    assert (done.exit_code, found["score"]) == (1, 0.0)
    assert [row["name"] for row in found["checks"]] == NAMES
    assert {row["status"] for row in found["checks"]} == {"FAIL"}
    (told,) = [row["reason"] for row in found["checks"] if row["name"] == "Environment Variables"]
    assert {"DATABASE_URL", "MAX_WEBHOOK_BYTES"} <= set(told.removeprefix("wrong: ").split(", "))


@pytest.mark.parametrize(
    ("typed", "goes_on"),
    [
        ("--app wsgi readiness --json", True),
        ("--app wsgi readiness", True),
        ("--app wsgi settings check --json", True),
        ("--app wsgi org list", False),
        ("-c gunicorn.conf.py wsgi:app", False),
    ],
)
def test_only_the_commands_that_tell_of_wrong_settings_go_on_with_them(typed, goes_on):
    assert goes_on_without_settings(typed.split()) is goes_on


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


def test_a_look_at_the_server_changes_nothing_where_it_is_taken(platform, monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.delenv("METRICS_DIR", raising=False)
    before = dict(os.environ)
    assert check(platform, "Server Configuration")["status"] == "PASS"
    assert dict(os.environ) == before
    assert not list(tmp_path.glob("voicedesk-metrics-*"))


def test_keys_that_open_nothing_fail_three_checks(another, people):
    platform = another(credentials_keys=[Fernet.generate_key().decode()])
    for name in ("Encryption Keys", "Twilio Integration", "Calendar Integration"):
        assert check(platform, name)["status"] == "FAIL"


def test_an_older_key_is_fine_and_told(another, people, settings):
    platform = another(credentials_keys=[Fernet.generate_key().decode(), *settings.credentials_keys])
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


def test_a_folder_that_cannot_be_written_fails(another, tmp_path):
    assert check(another(metrics_dir=str(tmp_path)), "Disk and Spool")["status"] == "PASS"
    found = check(another(metrics_dir=str(tmp_path / "gone")), "Disk and Spool")
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


def test_a_database_that_hangs_is_said_to_be_away_by_every_check_and_holds_none_up(another, postgres):
    platform = another()  # has not spoken to its database yet, as a command that has just begun
    postgres.freeze()
    try:
        found = readiness.run(platform)
    finally:
        postgres.thaw()
    failed = {row["name"]: row for row in found["checks"] if row["status"] == "FAIL"}
    assert {"Database Connection", "Migration Head", "Row-Level Security", "Clock"} <= set(failed)
    assert all(row["reason"].startswith("the database ") for row in failed.values()), failed
    assert max(row["duration_ms"] for row in failed.values()) < 5000
