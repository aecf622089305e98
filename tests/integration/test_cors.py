"""Which pages may call the API from a browser, and that webhooks know nothing of pages."""

from __future__ import annotations

import pytest

from app import create_app
from tests.integration.api import Program

PAGE, OTHER = "https://desk.example", "https://desk.example.evil.test"


@pytest.fixture
def settings(settings):
    return settings.model_copy(
        update={"cors_origins": [PAGE, "http://[::1]:3000"], "api_quota_per_address": 3, "api_quota_per_hour": 2}
    )


def preflight(client, origin: str, *, path: str = "/api/v1/messages", method: str = "POST", headers: str = ""):
    sent = {"Origin": origin, "Access-Control-Request-Method": method}
    if headers:
        sent["Access-Control-Request-Headers"] = headers
    return client.options(path, headers=sent)


def allowed(answer) -> dict[str, str]:
    return {name: value for name, value in answer.headers if name.startswith("Access-Control-")}


def test_a_preflight_of_a_listed_page_is_answered_without_a_key(client):
    answer = preflight(client, PAGE, headers="authorization, idempotency-key, content-type, x-api-key")
    assert answer.status_code in (200, 204)
    said = allowed(answer)
    assert said["Access-Control-Allow-Origin"] == PAGE
    assert "POST" in said["Access-Control-Allow-Methods"]
    wanted = {"authorization", "idempotency-key", "content-type", "x-api-key"}
    assert wanted <= {name.strip().lower() for name in said["Access-Control-Allow-Headers"].split(",")}
    assert "Access-Control-Allow-Credentials" not in said
    assert "Origin" in answer.headers["Vary"]


def test_preflights_cost_no_quota(client):
    assert {preflight(client, PAGE).status_code for _ in range(10)} == {200}
    assert client.get("/api/v1/calls").headers["RateLimit-Remaining"] == "2"


@pytest.mark.parametrize(
    "origin",
    [OTHER, "http://desk.example", "https://desk.example:444", "null", "https://deskxexample", "*", "http://:"],
)
def test_a_page_that_is_not_listed_is_allowed_nothing(client, origin):
    assert allowed(preflight(client, origin)) == {}
    assert allowed(client.get("/api/v1/calls", headers={"Origin": origin})) == {}


def test_an_origin_is_taken_as_it_is_written_and_not_as_a_pattern(client):
    assert allowed(preflight(client, "http://[::1]:3000"))["Access-Control-Allow-Origin"] == "http://[::1]:3000"


def test_a_page_may_read_answers_and_refusals_and_what_is_left_of_its_quota(app, client, people):
    program = Program(app, people.salon.id)
    answers = [
        client.get("/api/v1/calls", headers={**program.headers, "Origin": PAGE}),
        client.get("/api/v1/calls/nothing", headers={**program.headers, "Origin": PAGE}),
        client.get("/api/v1/calls", headers={"Origin": PAGE}),
        client.get("/api/v1/calls", headers={**program.headers, "Origin": PAGE}),
        client.get("/api/v1/calls", headers={**program.headers, "Origin": PAGE}),
    ]
    assert [answer.status_code for answer in answers] == [200, 404, 401, 200, 429]
    for answer in answers:
        assert answer.headers["Access-Control-Allow-Origin"] == PAGE
        assert "RateLimit-Remaining" in answer.headers["Access-Control-Expose-Headers"]


def test_webhooks_and_health_have_no_cors_at_all(client, people):
    for path in (f"/webhooks/vapi/{people.salon.vapi_token}", "/webhooks/twilio/x/status", "/health", "/metrics"):
        assert allowed(preflight(client, PAGE, path=path)) == {}
    answer = client.post(f"/webhooks/vapi/{people.salon.vapi_token}", json={}, headers={"Origin": PAGE})
    assert allowed(answer) == {}


def test_without_origins_no_page_may_call(settings):
    closed = create_app(settings.model_copy(update={"cors_origins": []}))
    answer = preflight(closed.test_client(), PAGE)
    assert answer.status_code == 200
    assert allowed(answer) == {}
    closed.extensions["platform"].close()
