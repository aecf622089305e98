"""Settings: every fault at once, by name, never by value; production refuses what only suits a desk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from base64 import urlsafe_b64encode

import pytest
from cryptography.fernet import Fernet

from app.config import load_settings
from app.errors import ConfigurationError
from tests.e2e.house import ROOT

FINE = {
    "DATABASE_URL": "postgresql://voicedesk:Vk3-n8QzTr@db.internal/voicedesk",
    "CREDENTIALS_KEYS": Fernet.generate_key().decode(),
    "PUBLIC_BASE_URL": "https://desk.example.com",
    "ENVIRONMENT": "production",
}


def check(**variables: str) -> tuple[int, dict]:
    """Run the command in a process that has these variables alone."""
    environment = {"PATH": os.environ["PATH"], **variables}
    done = subprocess.run(
        [sys.executable, "-m", "flask", "--app", "wsgi", "settings", "check", "--json"],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(done.stdout)


def faults_of(monkeypatch, **variables: str) -> set[str]:
    """The variables that ``create_app`` would refuse."""
    for name in list(os.environ):
        if name.endswith("_URL") or name in ("ENVIRONMENT", "CREDENTIALS_KEYS", "FLASK_DEBUG"):
            monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    try:
        load_settings()
    except ConfigurationError as error:
        said = str(error)
    else:
        return set()
    secrets = [value for name, value in variables.items() if name not in ("ENVIRONMENT", "FLASK_DEBUG") and value]
    assert not [value for value in secrets if value in said]
    return {line.partition(":")[0].strip() for line in said.splitlines()[1:]}


def test_settings_that_are_fine_are_said_to_be_and_only_names_are_shown():
    code, found = check(**FINE)
    assert (code, found["faults"], found["environment"]) == (0, [], "production")
    assert set(found["set"]) == set(FINE)


def test_every_fault_is_told_at_once_by_name_and_no_value_is_shown(tmp_path):
    code, found = check(
        **{**FINE, "PUBLIC_BASE_URL": "http://desk.example.com", "WORKER_THREADS": "several-threads"},
        TWILIO_API_BASE_URL="http://127.0.0.1:9",
        SLACK_BOT_TOKEN="xoxb-your-token",
        VAPI_PRIVATE_KEY="changeme",
        METRICS_TOKEN_FILE=str(tmp_path / "missing"),
        FLASK_DEBUG="1",
    )
    assert code == 1
    told = {fault["variable"] for fault in found["faults"]}
    assert told == {
        "PUBLIC_BASE_URL",
        "WORKER_THREADS",
        "TWILIO_API_BASE_URL",
        "SLACK_BOT_TOKEN",
        "VAPI_PRIVATE_KEY",
        "METRICS_TOKEN_FILE",
        "FLASK_DEBUG",
    }
    assert not any(
        value in json.dumps(found) for value in ("several-threads", "changeme", "your-token", "desk.example")
    )


def test_without_any_variable_the_command_still_tells_what_is_missing():
    code, found = check()
    assert code == 1
    assert {fault["variable"] for fault in found["faults"]} == {"DATABASE_URL", "CREDENTIALS_KEYS"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PUBLIC_BASE_URL", ""),
        ("PUBLIC_BASE_URL", "http://127.0.0.1:8000"),
        ("VAPI_API_BASE_URL", "http://localhost:9"),
        ("GOOGLE_CALENDAR_API_BASE_URL", "http://localhost:9"),
        ("SLACK_API_BASE_URL", "http://localhost:9"),
        ("CREDENTIALS_KEYS", urlsafe_b64encode(b"0" * 32).decode()),
        ("CREDENTIALS_KEYS", f"{urlsafe_b64encode(bytes(range(32))).decode()},{urlsafe_b64encode(bytes(32)).decode()}"),
        ("DATABASE_URL", "postgresql://voicedesk:voicedesk@db/voicedesk"),
        ("DATABASE_URL", "postgresql://voicedesk:changeme@db/voicedesk"),
        ("REDIS_URL", "redis://:password@redis:6379/0"),
        ("METRICS_TOKEN", "your-token-here"),
        ("FLASK_DEBUG", "true"),
    ],
)
def test_production_refuses_what_development_may_have(monkeypatch, name, value):
    assert faults_of(monkeypatch, **{**FINE, name: value}) == {name}
    assert faults_of(monkeypatch, **{**FINE, name: value, "ENVIRONMENT": "development"}) == set()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SENTRY_DSN", "not-a-dsn-at-all"),
        ("SENTRY_DSN", "https://public@sentry.example.com"),
        ("SENTRY_DSN", "https://public@sentry.example.com:port/1"),
        ("REDIS_URL", "redis://:Vk3-n8QzTr@redis:port/0"),
        ("DATABASE_URL", "postgresql://voicedesk:Vk3-n8QzTr@db:port/voicedesk"),
        ("MIGRATION_DATABASE_URL", "postgresql://[db/voicedesk"),
        ("PUBLIC_BASE_URL", "https:///desk"),
        ("PUBLIC_BASE_URL", "https://desk.example.com/?a=b"),
        ("PUBLIC_BASE_URL", "https://desk.example.com:port"),
        ("SLACK_API_BASE_URL", "https://[slack"),
    ],
)
def test_a_url_that_nothing_can_read_is_told_by_its_name_and_ends_in_no_traceback(monkeypatch, name, value):
    assert faults_of(monkeypatch, **{**FINE, name: value}) == {name}
    code, found = check(**{**FINE, name: value})
    assert (code, [fault["variable"] for fault in found["faults"]]) == (1, [name])
    assert value not in json.dumps(found)


def test_debug_is_refused_however_production_is_spelled(monkeypatch):
    spelled = {name: value for name, value in FINE.items() if name != "ENVIRONMENT"}
    assert faults_of(monkeypatch, **spelled, environment="production", FLASK_DEBUG="1") == {"FLASK_DEBUG"}


def test_keys_may_not_be_meant_to_outlive_their_deliveries(monkeypatch):
    assert faults_of(monkeypatch, **FINE, KEEP_KEYS_HOURS="200") == {"KEEP_DELIVERIES_DAYS"}
    assert faults_of(monkeypatch, **FINE, KEEP_KEYS_HOURS="160") == set()
