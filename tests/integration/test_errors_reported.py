"""Errors: reported once, counted by kind, in Redis for all processes and in memory without it; scrubbed for Sentry."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import sentry_sdk
from click.testing import CliRunner
from flask import Flask
from flask.cli import ScriptInfo
from flask.testing import FlaskClient
from redis import Redis
from rq import Queue
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport

from app.cli.output import DataCommand
from app.config import Settings, environment_of
from app.errors import ProviderUnavailable
from app.observability import context, errors
from app.observability.errors import Tally, count, report
from app.observability.sentry import configure_sentry
from app.redis import RedisLink
from app.services import delivery as delivering
from app.services.delivery import Work
from app.services.error_counts import ErrorCounts
from app.services.isolation import ROOT
from app.services.platform import Platform
from sandbox.valkey import EmbeddedValkey
from tests.conftest import Urls, make_settings
from tests.eventually import eventually
from tests.people import People

NUMBER = "+4917655544433"
SECRET = "a-secret-of-this-test-51"
WORDS = "Jane would like her fringe cut short"


class Clock:
    """A clock that stands where it is put."""

    def __init__(self, now: float = 1_000_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Post(Transport):
    """Keeps what would be sent to Sentry."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[dict[str, Any]] = []
        self.raw: list[bytes] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        self.raw.append(envelope.serialize())
        event = envelope.get_event() or envelope.get_transaction_event()
        if event is not None:
            self.sent.append(dict(event))


@pytest.fixture
def post(settings: Settings) -> Iterator[Post]:
    """Sentry is configured, and what it is sent stays here."""
    post = Post()
    dsn = "https://0123456789abcdef@sentry.test/1"
    configured = settings.model_copy(update={"sentry_dsn": dsn, "release": "v-test-1"})
    assert configure_sentry(configured, transport=post)
    yield post
    sentry_sdk.get_client().close(timeout=0)
    sentry_sdk.get_global_scope().set_client(None)
    sentry_sdk.get_isolation_scope().clear()


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


def fail(*_args: Any, **_kwargs: Any) -> Any:
    """Fails as a library does: with what it was given in its message."""
    heard = WORDS  # a local variable, as a frame would show it
    raise RuntimeError(f"cannot send {heard!r} to {NUMBER} with {SECRET}")


def failure() -> RuntimeError:
    try:
        fail()
    except RuntimeError as error:
        return error
    raise AssertionError


# --- counting ---------------------------------------------------------------------------------


def test_counts_are_by_kind_over_one_five_and_sixty_minutes() -> None:
    clock = Clock()
    counts = ErrorCounts(RedisLink(None), Tally(clock))
    for age, kind in ((3000, "web:A"), (200, "web:A"), (200, "job:B"), (0, "web:A")):
        clock.now = 1_000_000_000.0 - age
        count(kind)
    clock.now = 1_000_000_000.0
    assert counts.totals() == {
        "1m": {"web:A": 1},
        "5m": {"web:A": 2, "job:B": 1},
        "60m": {"web:A": 3, "job:B": 1},
    }
    assert [counts.total(minutes) for minutes in (1, 5, 60)] == [1, 3, 4]
    clock.now += 3700
    assert counts.totals()["60m"] == {}


def test_processes_count_together_in_redis(own_valkey: EmbeddedValkey) -> None:
    ones = ErrorCounts(RedisLink(own_valkey.url))
    count("web:A")
    others = ErrorCounts(RedisLink(own_valkey.url))
    count("web:A")
    count("job:B")
    eventually(lambda: ones.totals()["5m"] == {"web:A": 2, "job:B": 1})  # by their own threads
    eventually(lambda: others.totals() == ones.totals())
    ones.stop()
    others.stop()


def test_what_redis_does_not_know_yet_is_counted_already(own_valkey: EmbeddedValkey) -> None:
    counts = ErrorCounts(RedisLink(own_valkey.url))
    for number in range(1, 6):
        count("web:A")
        assert counts.total(1) == number
    counts.stop()
    assert ErrorCounts(RedisLink(own_valkey.url)).total(1) == 5


def test_without_redis_memory_counts_and_what_was_counted_follows(own_valkey: EmbeddedValkey) -> None:
    counts = ErrorCounts(RedisLink(own_valkey.url))
    own_valkey.stop()
    count("web:A")
    count("web:A")
    assert counts.total(5) == 2
    assert not counts.flush()
    own_valkey.start()
    eventually(lambda: ErrorCounts(RedisLink(own_valkey.url)).total(5) == 2)
    assert counts.total(5) == 2
    counts.stop()


def test_keys_in_redis_end_by_themselves(own_valkey: EmbeddedValkey) -> None:
    counts = ErrorCounts(RedisLink(own_valkey.url))
    count("web:A")
    assert counts.flush()
    redis = Redis.from_url(own_valkey.url)
    (key,) = redis.keys("voicedesk:errors:*")
    assert 3600 < redis.ttl(key) <= 3900
    counts.stop()


def test_kinds_are_bounded_and_none_is_lost() -> None:
    counts = ErrorCounts(RedisLink(None))
    for number in range(errors.MOST_KINDS + 50):
        count(f"web:{number}")
    assert counts.total(5) == errors.MOST_KINDS + 50
    assert counts.totals()["5m"][errors.OTHER] == 50


def test_counting_waits_for_no_redis(own_valkey: EmbeddedValkey) -> None:
    counts = ErrorCounts(RedisLink(own_valkey.url))
    own_valkey.freeze()
    try:
        threads = [threading.Thread(target=count, args=("web:A",)) for _ in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=2)
        assert not any(thread.is_alive() for thread in threads)
        assert counts.total(1) == 50
    finally:
        own_valkey.thaw()
    counts.stop()


# --- every door -------------------------------------------------------------------------------


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
    away = Platform(platform.settings.model_copy(update={"database_url": "postgresql+psycopg2://x:x@127.0.0.1:1/x"}))
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


def test_a_job_that_fails_is_counted_and_reported_once(
    database_urls: Urls, own_valkey: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch, post: Post
) -> None:
    from workers import worker
    from workers.worker import Worker

    settings = make_settings(database_urls, redis_url=own_valkey.url)
    monkeypatch.setattr(worker, "load_settings", lambda: settings)
    monkeypatch.setattr(worker, "watch_process", lambda _where: None)  # pytest's own hooks stay
    monkeypatch.setattr(worker, "_runtime", None)
    redis = Redis.from_url(own_valkey.url)
    queue = Queue("failing", connection=redis)
    queue.enqueue(fail, NUMBER, WORDS, description=f"fail('{NUMBER}', '{WORDS}')")
    Worker([queue], connection=redis).work(burst=True, logging_level="WARNING")
    assert ErrorCounts(RedisLink(own_valkey.url)).totals()["5m"]["job:RuntimeError"] == 1
    (event,) = [event for event in post.sent if event["tags"]["kind"] == "job:RuntimeError"]
    assert event["tags"]["where"] == "job"
    assert event["extra"]["rq-job"]["func"].endswith("fail")
    assert_clean(post)


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
        eventually(lambda: b'"scheduler:RuntimeError"' in b"".join(got))
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


# --- Sentry -----------------------------------------------------------------------------------


def assert_clean(post: Post) -> None:
    """Nothing that a person said, is called by or must not know is in what left."""
    assert post.raw
    everything = b"\n".join(post.raw).decode()
    for planted in (NUMBER, NUMBER[1:], SECRET, WORDS, "Jane", "fringe"):
        assert planted not in everything


def test_without_a_dsn_nothing_is_configured(settings: Settings) -> None:
    assert not configure_sentry(settings)
    assert not sentry_sdk.is_initialized()


def test_a_report_has_release_environment_and_ids(platform: Platform, post: Post) -> None:
    with context.bound(request_id="req-00000001", delivery_id=17, org_id="o-1", attempt=2, provider="twilio"):
        report(failure(), where="delivery")
    (event,) = post.sent
    assert (event["release"], event["environment"]) == ("v-test-1", "test")
    assert event["tags"] == {
        "kind": "delivery:RuntimeError",
        "where": "delivery",
        "request_id": "req-00000001",
        "delivery_id": "17",
        "org_id": "o-1",
        "attempt": "2",
        "provider": "twilio",
    }
    frames = event["exception"]["values"][-1]["stacktrace"]["frames"]
    assert frames[-1]["function"] == "fail"
    assert "vars" not in frames[-1]


@pytest.mark.parametrize(
    "body",
    [
        {"data": {"From": NUMBER, "Body": WORDS}},
        {"json": {"message": {"transcript": WORDS, "customer": {"number": NUMBER}}}},
    ],
    ids=["form", "JSON"],
)
def test_a_failed_request_leaves_body_query_and_headers_here(
    app: Flask, platform: Platform, client: FlaskClient, post: Post, body: dict[str, Any]
) -> None:
    app.add_url_rule("/webhooks/failing/<token>", view_func=fail, methods=["POST"])
    headers = {
        "X-Vapi-Secret": SECRET,
        "X-Twilio-Signature": SECRET,
        "X-Goog-Channel-Token": SECRET,
        "Authorization": f"Bearer {SECRET}",
        "Cookie": f"session={SECRET}",
        "X-Forwarded-For": "203.0.113.9",
        "X-Caller": NUMBER,
        "User-Agent": f"agent {NUMBER}",
    }
    target = f"/webhooks/failing/{SECRET}?Body={WORDS.replace(' ', '+')}&To={NUMBER.replace('+', '%2B')}"
    answer = client.post(target, headers=headers, **body)
    (event,) = post.sent
    assert event["request"]["url"].endswith("/webhooks/failing/[token]")
    assert event["tags"]["request_id"] == answer.headers["X-Request-Id"]
    assert "203.0.113.9" not in str(event)
    assert_clean(post)


def test_words_in_breadcrumbs_extras_and_messages_stay_here(platform: Platform, post: Post) -> None:
    sentry_sdk.add_breadcrumb(category="http", message=f"{WORDS} {NUMBER}", data={"url": f"/x?To={NUMBER}"})
    sentry_sdk.set_extra("body", WORDS)
    sentry_sdk.set_context("call", {"transcript": WORDS})
    sentry_sdk.set_user({"id": NUMBER, "username": "Jane"})
    sentry_sdk.set_tag("caller", NUMBER)
    sentry_sdk.capture_message(f"a text to {NUMBER}, token={SECRET}")
    report(failure(), where="web")
    assert len(post.sent) == 2
    assert_clean(post)


def test_a_chain_of_exceptions_is_silenced_in_every_link(platform: Platform, post: Post) -> None:
    try:
        try:
            fail()
        except RuntimeError as cause:
            raise ProviderUnavailable("Twilio did not answer") from cause
    except ProviderUnavailable as error:
        report(error, where="web")
    (event,) = post.sent
    assert [value["value"] for value in event["exception"]["values"]][-1] == "Twilio did not answer"
    assert_clean(post)


def test_one_exception_is_reported_once(platform: Platform, post: Post) -> None:
    error = failure()
    report(error, where="web")
    sentry_sdk.capture_exception(error)
    assert len(post.sent) == 1


def test_an_outage_is_one_story_for_sentry_and_counted_in_full(platform: Platform, post: Post) -> None:
    for _ in range(200):
        report(failure(), where="web")
    assert platform.error_counts.total(5) == 200
    assert 1 <= len(post.sent) <= 3 * errors.MOST_SENT_A_SLOT


def test_log_lines_are_no_reports(platform: Platform, post: Post) -> None:
    import logging

    logging.getLogger("rq.worker").error("a library complains about %s", NUMBER)
    assert post.sent == []


def test_a_report_is_a_line_with_class_kind_and_place_alone(
    platform: Platform, capsys: pytest.CaptureFixture[str]
) -> None:
    report(failure(), where="job", event="job.failed", job="drain")
    line = json.loads(capsys.readouterr().err.strip().splitlines()[-1])
    assert (line["event"], line["kind"], line["error"], line["job"]) == (
        "job.failed",
        "job:RuntimeError",
        "RuntimeError",
        "drain",
    )
    assert line["raised_at"].startswith(Path(__file__).name)
    assert WORDS not in str(line)
