"""/metrics: who may read it, what stands there whatever is away, and that nobody can make it grow."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any, get_args

import pytest
from flask import Flask

from app import create_app
from app.integrations.breaker import CIRCUITS, FORWARD, VAPI, circuits, protected
from app.observability import metrics
from app.observability.errors import Where
from app.services import canary, handlers
from app.services.drain import Drain
from app.services.measurements import GAUGES, PARTS
from app.services.readiness import providers
from app.services.webhook_quotas import measure
from tests.circuits import Provider
from tests.conftest import make_settings
from tests.prometheus import label_values, names, parse, total

Build = Callable[..., Flask]


@pytest.fixture
def build(database_urls, world) -> Iterator[Build]:
    apps = []

    def make(**overrides: Any) -> Flask:
        apps.append(create_app(make_settings(database_urls, world, **overrides)))
        return apps[-1]

    yield make
    for app in apps:
        app.extensions["platform"].close()


def scrape(app: Flask):
    """What stands there now; measured anew."""
    app.extensions["platform"].measurements._taken_at = 0.0
    answer = app.test_client().get("/metrics")
    assert answer.status_code == 200
    return parse(answer.get_data(as_text=True))


def update(call_id: str, kind: str = "status-update") -> dict[str, Any]:
    return {"type": kind, "status": "in-progress", "call": {"id": call_id}}


def test_it_is_plain_text_for_prometheus_and_sets_no_cookie(app):
    answer = app.test_client().get("/metrics")
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "Set-Cookie" not in answer.headers
    assert answer.headers["Cache-Control"] == "no-store"


def test_who_asks_for_openmetrics_gets_it(app):
    answer = app.test_client().get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.get_data(as_text=True).endswith("# EOF\n")


def test_with_a_token_set_it_is_for_its_bearer_alone(build):
    token = secrets.token_urlsafe(16)
    client = build(metrics_token=token).test_client()
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {token}"}):
        answer = client.get("/metrics", headers=headers)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert b"voicedesk_" not in answer.data
    assert client.get("/metrics", headers={"Authorization": f"Bearer {token}"}).status_code == 200


def test_accepted_duplicate_and_refused_webhooks_are_counted_each_for_itself(app, people, client):
    before = scrape(app)
    for call_id in ("a", "a", "b"):
        assert people.salon.vapi(client, update(call_id)).status_code == 200
    assert people.salon.vapi(client, update("c"), secret="wrong").status_code == 403
    assert client.post("/webhooks/vapi/nobody", json={}).status_code == 404
    after = scrape(app)

    def more(name: str, **labels: str) -> float:
        return total(after, name, **labels) - total(before, name, **labels)

    assert more("voicedesk_webhooks_accepted_total", provider="vapi", type="status-update") == 2
    assert more("voicedesk_webhooks_duplicate_total", provider="vapi") == 1
    assert more("voicedesk_webhooks_refused_total", provider="vapi", code="signature_invalid") == 1
    assert more("voicedesk_webhooks_refused_total", provider="vapi", code="unknown_endpoint") == 1
    assert more("voicedesk_request_seconds_count", route="/webhooks/vapi/<token>") == 5


def test_a_delivery_is_counted_and_timed_by_what_became_of_it(app, people, client, settle):
    before = scrape(app)
    people.salon.vapi(client, update("a"))
    people.salon.vapi(client, update("a", "hang"))
    settle(lambda: total(scrape(app), "voicedesk_deliveries_waiting") == 0)
    after = scrape(app)
    for kind, outcome in (("status-update", "processed"), ("hang", "skipped")):
        labels = {"provider": "vapi", "type": kind}
        name = "voicedesk_deliveries_ended_total"
        assert total(after, name, outcome=outcome, **labels) - total(before, name, outcome=outcome, **labels) == 1
        name = "voicedesk_handler_seconds_count"
        assert total(after, name, **labels) - total(before, name, **labels) == 1
    name = "voicedesk_delivery_seconds_count"
    assert total(after, name, provider="vapi") - total(before, name, provider="vapi") == 2


def test_what_waits_is_told_with_its_age(app, people, client):
    people.salon.vapi(client, update("a"))
    time.sleep(0.05)
    now = scrape(app)
    assert total(now, "voicedesk_deliveries_waiting", status="received") == 1
    assert total(now, "voicedesk_oldest_waiting_seconds") > 0.04
    assert total(now, "voicedesk_ledger", side="accepted") == total(now, "voicedesk_ledger", side="waiting") == 1
    assert total(now, "voicedesk_ledger_difference") == 0


def test_who_waits_because_of_a_quota_is_not_told_as_waiting_too_long(app, platform, people, client, monkeypatch):
    people.salon.vapi(client, update("a"))
    people.salon.vapi(client, update("b"))
    time.sleep(0.05)
    monkeypatch.setattr(platform, "settings", platform.settings.model_copy(update={"webhook_quota_per_hour": 1}))
    measure(platform)
    assert total(scrape(app), "voicedesk_oldest_waiting_seconds") == 0
    people.dental.vapi(client, update("c"))
    time.sleep(0.05)
    assert total(scrape(app), "voicedesk_oldest_waiting_seconds") > 0.04


def test_a_circuit_that_opens_is_seen_and_its_calls_are_counted(app, platform, monkeypatch):
    monkeypatch.setattr(circuits, "open_seconds", 60.0)  # open, however long a busy machine takes to ask
    before = scrape(app)
    assert total(before, "voicedesk_circuit_state", circuit=VAPI) == 0
    provider = Provider(circuits, VAPI)
    provider.call()
    provider.fail(platform.settings.circuit_failures)
    with pytest.raises(metrics.errors.CircuitOpen):
        protected(VAPI)(lambda: None)()
    after = scrape(app)
    assert total(after, "voicedesk_circuit_state", circuit=VAPI) == 2
    for outcome, count in (("ok", 1), ("provider_unavailable", 3), ("circuit_open", 1)):
        name = "voicedesk_outbound_seconds_count"
        labels = {"circuit": VAPI, "outcome": outcome}
        assert total(after, name, **labels) - total(before, name, **labels) == count


def test_a_request_refused_for_a_quota_is_counted_by_whose_quota_it_was(build):
    app = build(api_quota_per_address=2)
    before = scrape(app)
    answers = [app.test_client().get("/api/v1/deliveries").status_code for _ in range(3)]
    assert answers == [401, 401, 429]
    after = scrape(app)
    name = "voicedesk_quota_refusals_total"
    assert total(after, name, quota="address") - total(before, name, quota="address") == 1
    assert total(after, name, quota="organization") == total(before, name, quota="organization")


def test_with_the_database_away_it_still_answers_and_says_so(build):
    began = time.monotonic()
    now = scrape(build(database_url="postgresql://nobody:x@127.0.0.1:1/none"))
    assert time.monotonic() - began < 5
    assert total(now, "voicedesk_database_up") == 0
    assert total(now, "voicedesk_measured", part="queue") == 0
    assert total(now, "voicedesk_measured", part="circuits") == 1
    assert "voicedesk_deliveries_waiting" not in names(now)
    assert "voicedesk_errors_total" in names(now)


def test_with_a_database_that_hangs_it_answers_before_prometheus_gives_up(app, platform, postgres):
    scrape(app)
    postgres.freeze()
    try:
        began = time.monotonic()
        now = scrape(app)
        assert time.monotonic() - began < 9
    finally:
        postgres.thaw()
    assert total(now, "voicedesk_database_up") == 0
    assert total(now, "voicedesk_measured", part="circuits") == 1


def test_with_everything_there_every_part_is_measured_and_nothing_else_is_told_than_what_is_declared(build, valkey):
    app = build(redis_url=valkey.url)
    platform = app.extensions["platform"]
    canary.tend(platform)
    Drain(platform, threads=2).run()
    now = scrape(app)
    assert {part for part in PARTS if not total(now, "voicedesk_measured", part=part)} == set()
    assert total(now, "voicedesk_redis_up") == 1
    assert {name for name in names(now) if name.removeprefix("voicedesk_") in GAUGES} == {
        f"voicedesk_{name}" for name in GAUGES
    }
    counted = {re.sub("_(bucket|count|sum)$", "", name) for name in names(now)} - {f"voicedesk_{n}" for n in GAUGES}
    assert counted <= set(metrics.declared())


def test_a_bug_in_one_part_leaves_the_others(app, monkeypatch):
    monkeypatch.setitem(PARTS, "queue", lambda _: 1 / 0)
    now = scrape(app)
    assert total(now, "voicedesk_measured", part="queue") == 0
    assert total(now, "voicedesk_measured", part="ledger") == 1


def test_scrapes_in_a_row_ask_the_database_once(app, people, client):
    scrape(app)
    people.salon.vapi(client, update("a"))
    again = parse(app.test_client().get("/metrics").get_data(as_text=True))
    assert total(again, "voicedesk_deliveries_waiting") == 0
    assert total(scrape(app), "voicedesk_deliveries_waiting") == 1


def test_nothing_that_is_sent_makes_a_new_series_or_is_shown(app, people, client):
    salon = people.salon
    salon.vapi(client, update("first", "made-up-to-begin-with"))
    before = set(scrape(app))
    made_up = [f"made-up-{number}" for number in range(50)]
    for word in made_up:
        salon.vapi(client, update(word, kind=word))
        client.post(f"/webhooks/vapi/{word}", json={})
        client.get(f"/{word}")
    salon.text(client, "+4915112345678", "made-up-text")
    after = scrape(app)
    new = {(name, labels) for name, labels in after if (name, labels) not in before}
    shown = " ".join(value for _, labels in new for _, value in labels)
    assert len({labels for name, labels in new if name.startswith("voicedesk_webhooks")}) <= 3
    secret = {str(salon.id), salon.vapi_token, salon.number, salon.name, "+4915112345678", "made-up"}
    assert [one for one in secret if one in shown] == []
    assert [one for one in secret if any(one in value for value in label_values(after))] == []


def test_everything_that_the_house_handles_and_every_door_of_errors_is_on_the_lists():
    for provider, kind in handlers._HANDLERS:
        if provider != "test":
            assert provider in metrics.PROVIDERS
            assert kind in metrics.TYPES
            assert kind in metrics.HANDLED[provider]
    assert set(get_args(Where)) == metrics.WHERE
    assert {*CIRCUITS, FORWARD} == metrics.CIRCUITS


def test_a_trial_of_the_breaker_is_no_call_to_a_provider(app, platform):
    def outbound() -> dict:
        return {one: value for one, value in scrape(app).items() if one[0].startswith("voicedesk_outbound_seconds")}

    before = outbound()
    assert providers.breaker(platform).status == "PASS"
    assert outbound() == before


def test_every_label_is_one_of_a_few_and_never_whose_it_is():
    for name, labels in metrics.declared().items():
        assert len(labels) <= 3, name
        assert not {"org", "org_id", "organization", "token", "number", "address", "path"} & set(labels), name
