"""Who may ask: a key where it may stand, a scope for what is asked, and clear refusals."""

from __future__ import annotations

import pytest

from app import create_app
from app.services import api_keys
from tests.integration.api import Program


@pytest.fixture
def salon(app, people) -> Program:
    return Program(app, people.salon.id)


def ask(client, **headers: str):
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.get("/api/v1/calls", headers=sent)


def test_a_key_may_be_a_bearer_token_or_a_header_of_its_own(client, salon):
    assert ask(client, Authorization=f"Bearer {salon.key}").status_code == 200
    assert ask(client, Authorization=f"bearer  {salon.key} ").status_code == 200
    assert ask(client, X_Api_Key=salon.key).status_code == 200
    assert ask(client, X_Api_Key=salon.key, Authorization=f"Bearer {salon.key}").status_code == 200


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Basic dTpw"}, {"Authorization": "Bearer"}, {"X_Api_Key": ""}]
)
def test_without_a_key_it_is_said_how_to_send_one(client, headers):
    answer = ask(client, **headers)
    assert (answer.status_code, answer.get_json()["code"]) == (401, "key_missing")
    assert answer.content_type == "application/problem+json"
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="voicedesk"'


def test_a_wrong_key_is_refused_and_not_repeated(client, salon, people, capfd):
    wrong = "vd_" + "w" * 32
    answer = ask(client, X_Api_Key=wrong)
    assert (answer.status_code, answer.get_json()["code"]) == (401, "key_refused")
    assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]
    assert wrong not in answer.get_data(as_text=True)
    assert wrong not in capfd.readouterr().err
    assert ask(client, X_Api_Key=salon.key, Authorization=f"Bearer {wrong}").status_code == 401


def test_a_key_in_the_query_is_no_key(client, salon):
    assert client.get("/api/v1/calls", query_string={"api_key": salon.key}).status_code == 401


@pytest.mark.parametrize(("scope", "read", "write"), [("read", 200, 403), ("write", 403, 202)])
def test_each_scope_allows_its_own_and_nothing_else(app, people, scope, read, write):
    program = Program(app, people.salon.id, scopes=(scope,))
    assert program.get("/calls").status_code == read
    sent = program.send("k", to="+4915112345678", body="x")
    assert sent.status_code == write
    refused = sent if write == 403 else program.get("/calls")
    assert refused.get_json()["code"] == "scope_missing"
    assert 'error="insufficient_scope"' in refused.headers["WWW-Authenticate"]


def test_a_revoked_key_gets_no_answer_any_more(salon, platform):
    assert salon.get("/calls").status_code == 200
    api_keys.revoke(platform, salon.prefix, actor="test")
    assert salon.get("/calls").status_code == 401


def test_with_the_database_away_nobody_is_refused_for_his_key(settings, people):
    away = create_app(settings.model_copy(update={"database_url": "postgresql+psycopg2://x:y@127.0.0.1:1/z"}))
    client = away.test_client()
    for _ in range(3):
        answer = ask(client, X_Api_Key="vd_" + "k" * 32)
        assert (answer.status_code, answer.get_json()["code"]) == (503, "database_unavailable")
        assert "Retry-After" in answer.headers
        assert "RateLimit-Limit" not in answer.headers
    away.extensions["platform"].close()


def test_every_answer_carries_headers_that_keep_browsers_from_harm(client, salon, people):
    for answer in (salon.get("/calls"), ask(client), client.get("/health"), client.get("/nothing")):
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Strict-Transport-Security"].startswith("max-age=")
    assert salon.get("/calls").headers["Cache-Control"] == "no-store"
    assert ask(client).headers["Cache-Control"] == "no-store"


def test_a_plain_http_house_promises_no_https(settings):
    plain = create_app(settings.model_copy(update={"public_base_url": "http://127.0.0.1:8000"}))
    assert "Strict-Transport-Security" not in plain.test_client().get("/health").headers
    plain.extensions["platform"].close()
