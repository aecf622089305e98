"""Every door is guarded: a limit or a reason, a signature on every webhook, a key and a scope on every API route."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from werkzeug.routing import Rule

from app.http.api.operations import OPERATIONS, PUBLIC
from app.http.limits import EXEMPT
from app.integrations.doors import DOORS
from app.services.api_keys import SCOPES
from tests.doors import Connected
from tests.integration.api import Program

SOMETHING = {"delivery_id": 1, "token": "token"}
SOME_ID = "00000000-0000-0000-0000-000000000001"


@pytest.fixture
def settings(settings):
    return settings.model_copy(update={"api_quota_per_address": 1, "webhook_failures_per_minute": 1})


def routes(app) -> list[Rule]:
    return list(app.url_map.iter_rules())


def path_of(rule: Rule, **ids: str) -> str:
    values = {name: ids.get(name, SOMETHING.get(name, SOME_ID)) for name in rule.arguments}
    built = rule.build(values)
    assert built is not None
    return built[1]


def method_of(rule: Rule) -> str:
    return min(rule.methods - {"HEAD", "OPTIONS"})


def test_every_route_has_a_limit_or_a_reason_to_have_none(app):
    for number, rule in enumerate(routes(app)):
        address = {"REMOTE_ADDR": f"198.51.{number}.1"}
        client = app.test_client()
        answers = [client.open(path_of(rule), method=method_of(rule), environ_base=address) for _ in range(2)]
        blueprint = rule.endpoint.partition(".")[0]
        is_limited = answers[1].status_code == 429 and "Retry-After" in answers[1].headers
        assert is_limited is not (blueprint in EXEMPT), rule.rule


def test_every_exemption_has_its_reason_and_is_of_something_that_exists(app):
    assert set(EXEMPT) == {"webhooks", "health", "metrics"}  # one more is a decision, not a slip
    assert set(EXEMPT) <= set(app.blueprints)
    assert all(len(reason.split()) > 4 for reason in EXEMPT.values())


def test_every_webhook_route_refuses_what_is_not_signed_and_keeps_nothing_of_it(app, platform, people):
    tokens = {
        "vapi": people.salon.vapi_token,
        "twilio": people.salon.twilio_token,
        "google-calendar": people.salon.google_token,
    }
    content = {"vapi": "application/json", "twilio": "application/x-www-form-urlencoded", "google-calendar": None}
    for provider, door in DOORS.items():
        tokens[provider] = Connected(platform, people.salon.id, provider).token
        content[provider] = door.content_types[0]
    tried = 0
    for rule in routes(app):
        if not rule.rule.startswith("/webhooks/"):
            continue
        provider = rule.rule.split("/")[2]
        path = path_of(rule, token=tokens[provider])
        for _ in range(3):
            answer = app.test_client().post(path, data=b"{}", content_type=content[provider])
            assert answer.status_code in (401, 403), rule.rule
        tried += 1
    assert tried >= 4 + len(DOORS)
    with platform.database.transaction(system=True) as session:
        assert session.execute(text("SELECT count(*) FROM webhook_delivery_log")).scalar_one() == 0


def test_every_api_route_needs_a_key_and_a_scope(app, people):
    declared = [rule for rule in routes(app) if rule.rule.startswith("/api/") and rule.endpoint not in PUBLIC]
    assert declared
    for number, rule in enumerate(declared):
        operation = OPERATIONS[rule.endpoint]
        assert operation.scope in SCOPES
        address = {"REMOTE_ADDR": f"203.0.{number}.1"}
        answer = app.test_client().open(path_of(rule), method=operation.method, environ_base=address)
        assert answer.status_code == 401, rule.rule
        other = Program(app, people.salon.id, scopes=tuple(scope for scope in SCOPES if scope != operation.scope))
        answer = app.test_client().open(path_of(rule), method=operation.method, headers=other.headers)
        assert answer.status_code == 403, rule.rule


def test_what_changes_something_needs_the_scope_to_write():
    for operation in OPERATIONS.values():
        assert operation.scope == ("read" if operation.method == "GET" else "write"), operation.name
