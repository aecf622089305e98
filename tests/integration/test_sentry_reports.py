"""What Sentry is sent: release, environment and ids, and nothing about a person."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import sentry_sdk
from flask import Flask
from flask.testing import FlaskClient
from redis import Redis
from rq import Queue
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport

from app.config import Settings
from app.errors import ProviderUnavailable
from app.observability import context, errors
from app.observability.errors import report
from app.observability.sentry import configure_sentry
from app.redis import RedisLink
from app.services.error_counts import ErrorCounts
from app.services.platform import Platform
from sandbox.valkey import EmbeddedValkey
from tests.conftest import Urls, make_settings
from tests.failing import NUMBER, SECRET, WORDS, fail


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


def failure() -> RuntimeError:
    try:
        fail()
    except RuntimeError as error:
        return error
    raise AssertionError


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
    assert line["raised_at"].startswith("failing.py")
    assert WORDS not in str(line)


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
