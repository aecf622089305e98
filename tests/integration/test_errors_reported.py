"""Errors at every door: counted and reported once, and answered without their insides."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner
from flask import Flask
from flask.cli import ScriptInfo
from flask.testing import FlaskClient

from app.cli.output import DataCommand
from app.config import environment_of
from app.errors import ProviderUnavailable
from app.observability import errors
from app.redis import RedisLink
from app.services import delivery as delivering
from app.services.delivery import Work
from app.services.error_counts import ErrorCounts
from app.services.isolation import ROOT
from app.services.platform import Platform
from sandbox.valkey import EmbeddedValkey
from tests.conftest import Urls, make_settings
from tests.eventually import eventually
from tests.failing import NUMBER, WORDS, fail
from tests.people import People


@pytest.fixture
def mailbox() -> Iterator[tuple[str, list[bytes]]]:
    """A DSN whose server is here, and the bodies that it was posted."""
    got: list[bytes] = []

    class Door(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(gzip.decompress(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://0123456789abcdef@127.0.0.1:{server.server_port}/1", got
    server.shutdown()
    server.server_close()
    thread.join(timeout=5)


def test_a_request_that_fails_is_counted_and_answered_without_its_insides(
    app: Flask, platform: Platform, client: FlaskClient
) -> None:
    app.add_url_rule("/failing", view_func=fail)
    answer = client.get("/failing")
    assert answer.status_code == 500
    assert answer.get_json()["code"] == "internal"
    assert "X-Request-Id" in answer.headers
    assert WORDS not in answer.text
    assert platform.error_counts.totals()["1m"] == {"web:RuntimeError": 1}


def test_a_database_that_is_away_is_counted(platform: Platform, client: FlaskClient) -> None:
    platform.database.dispose()
    away = Platform(
        platform.settings.model_copy(
            update={"database_url": "postgresql+psycopg2://x:x@127.0.0.1:1/x", "spool_max_bytes": 0}
        )
    )
    client.application.extensions["platform"] = away
    try:
        assert client.post("/webhooks/vapi/any", json={}).status_code == 503
        assert away.error_counts.totals()["1m"] == {"web:database_unavailable": 1}
    finally:
        away.close()
        client.application.extensions["platform"] = platform


@pytest.mark.parametrize(
    ("error", "kind"),
    [(RuntimeError(WORDS), "delivery:RuntimeError"), (ProviderUnavailable(), "delivery:provider_unavailable")],
)
def test_an_attempt_that_fails_counts_once(
    platform: Platform,
    client: FlaskClient,
    people: People,
    monkeypatch: pytest.MonkeyPatch,
    settle: Callable[..., None],
    error: Exception,
    kind: str,
) -> None:
    def refuse(_work: Work) -> None:
        raise error

    monkeypatch.setattr(platform, "handler", lambda *_: refuse)
    monkeypatch.setattr(delivering, "SCHEDULE", (1000,))
    people.salon.text(client, NUMBER, "hello")
    settle(lambda: platform.error_counts.total(5))
    assert platform.error_counts.totals()["5m"] == {kind: 1}


def test_a_thread_that_dies_is_counted(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", errors.report_thread)
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join(timeout=5)
    assert platform.error_counts.totals()["1m"] == {"thread:RuntimeError": 1}


@pytest.mark.parametrize("as_json", [False, True])
def test_a_command_that_fails_says_so_in_one_line_and_is_counted(app: Flask, platform: Platform, as_json: bool) -> None:
    command = DataCommand("failing", callback=fail)
    result = CliRunner().invoke(
        command, ["--json"] if as_json else [], obj=ScriptInfo(create_app=lambda: app), catch_exceptions=False
    )
    assert result.exit_code == 1
    last = result.stderr.strip().splitlines()[-1]
    assert "RuntimeError" in last
    assert "Traceback" not in result.stderr
    assert WORDS not in result.output
    assert not as_json or json.loads(last)["error"]["code"] == "internal"
    assert platform.error_counts.totals()["1m"] == {"cli:RuntimeError": 1}


def test_a_command_that_fails_shows_all_of_it_when_debugging(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLASK_DEBUG", "1")
    result = CliRunner().invoke(DataCommand("failing", callback=fail), [], obj=ScriptInfo(create_app=lambda: app))
    assert isinstance(result.exception, RuntimeError)


def test_a_scheduler_outlives_a_bad_round_and_reports_it(
    database_urls: Urls, own_valkey: EmbeddedValkey, tmp_path: Path, mailbox: tuple[str, list[bytes]]
) -> None:
    dsn, got = mailbox
    script = tmp_path / "failing_scheduler.py"
    script.write_text(
        "import sys\nfrom workers import scheduler\ndef fail(_):\n    raise RuntimeError(sys.argv[1])\n"
        "scheduler.register = fail\nraise SystemExit(scheduler.main())\n"
    )
    settings = make_settings(database_urls, redis_url=own_valkey.url, sentry_dsn=dsn)
    environment = environment_of(settings) | {"PYTHONPATH": str(ROOT)}
    said = tmp_path / "scheduler.log"
    with said.open("w") as log:
        process = subprocess.Popen([sys.executable, script, WORDS], env=environment, stdout=log, stderr=log)
    try:
        counts = ErrorCounts(RedisLink(own_valkey.url))
        eventually(lambda: counts.totals()["5m"].get("scheduler:RuntimeError", 0) >= 2, seconds=30)
        eventually(lambda: b'"scheduler:RuntimeError"' in b"".join(got), seconds=30)
        process.terminate()
        assert process.wait(timeout=15) == 0
    finally:
        process.kill()
        process.wait(timeout=5)
    assert "scheduler.failed" in said.read_text()
    assert WORDS not in said.read_text() + b"".join(got).decode()


def test_what_nobody_caught_is_told_without_its_text(
    database_urls: Urls, own_valkey: EmbeddedValkey, mailbox: tuple[str, list[bytes]]
) -> None:
    dsn, got = mailbox
    script = (
        "import sys, threading\nfrom wsgi import app\n"
        "def fail():\n    raise RuntimeError(sys.argv[1])\n"
        "thread = threading.Thread(target=fail)\nthread.start()\nthread.join()\nfail()\n"
    )
    environment = environment_of(make_settings(database_urls, redis_url=own_valkey.url, sentry_dsn=dsn))
    done = subprocess.run(
        [sys.executable, "-c", script, WORDS], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    told = [json.loads(line) for line in done.stderr.strip().splitlines()]
    assert [line["event"] for line in told] == ["thread.failed", "process.failed"]
    assert WORDS not in done.stderr
    totals = ErrorCounts(RedisLink(own_valkey.url)).totals()["5m"]  # told in the last moment of the process
    assert totals == {"thread:RuntimeError": 1, "cli:RuntimeError": 1}
    sent = b"".join(got).decode()  # likewise
    assert '"thread:RuntimeError"' in sent
    assert '"cli:RuntimeError"' in sent
    assert WORDS not in sent
