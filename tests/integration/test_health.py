"""Health: each part speaks for itself, and only "cannot take a webhook" is 503 for a balancer."""

from __future__ import annotations

import time

import pytest

from app import create_app
from app.errors import ConfigurationError
from app.services import health
from app.services.installation import make_roles
from app.services.platform import Platform
from tests.conftest import make_settings


def ask(app, path):
    answer = app.test_client().get(path)
    assert app.test_client().head(path).status_code == answer.status_code
    return answer.status_code, answer.get_json()


@pytest.fixture
def build(database_urls, world):
    apps = []

    def make(**overrides):
        app = create_app(make_settings(database_urls, world, **overrides))
        apps.append(app)
        return app

    yield make
    for app in apps:
        app.extensions["platform"].close()


def test_the_process_lives(app):
    status, report = ask(app, "/health")
    assert status == 200
    assert report["status"] == "healthy"
    assert report["timestamp"]


def test_without_redis_it_is_ready_and_says_that_it_is_degraded(app):
    status, report = ask(app, "/health/ready")
    assert (status, report["status"]) == (200, "degraded")
    assert "Redis is not configured" in report["reasons"][0]


def test_with_redis_it_is_healthy(build, valkey):
    assert ask(build(redis_url=valkey.url), "/health/ready")[1]["status"] == "healthy"


def test_a_frozen_redis_costs_no_more_than_a_moment(build, own_valkey):
    app = build(redis_url=own_valkey.url)
    assert ask(app, "/health/redis")[0] == 200
    own_valkey.freeze()
    began = time.monotonic()
    assert ask(app, "/health/redis")[0] == 503
    assert ask(app, "/health/ready")[1]["status"] == "degraded"
    assert time.monotonic() - began < 2
    own_valkey.thaw()


def test_without_a_database_it_cannot_take_a_webhook(build):
    app = build(database_url="postgresql://nobody:x@127.0.0.1:1/none")
    assert ask(app, "/health/ready")[0] == 503
    assert ask(app, "/health/database")[0] == 503
    assert ask(app, "/health/queue")[0] == 503
    assert ask(app, "/health")[0] == 200


def test_vapi_is_probed_if_it_is_configured(build, world, monkeypatch):
    monkeypatch.setattr(health, "_probe", health._VapiProbe())
    assert ask(build(), "/health/vapi")[1]["status"] == "not_configured"
    world.vapi_key("the-right-key")
    assert ask(build(vapi_private_key="the-right-key"), "/health/vapi")[0] == 200
    monkeypatch.setattr(health, "_probe", health._VapiProbe())
    status, report = ask(build(vapi_private_key="a-wrong-key"), "/health/vapi")
    assert (status, report["code"]) == (503, "credentials_refused")


def test_a_hanging_vapi_does_not_make_a_slow_page(build, world, monkeypatch):
    monkeypatch.setattr(health, "_probe", health._VapiProbe())
    world.vapi_key("the-right-key")
    world.fault("vapi", "hang")
    began = time.monotonic()
    assert ask(build(vapi_private_key="the-right-key"), "/health/vapi")[0] == 503
    assert time.monotonic() - began < 4


def test_tables_that_are_missing_are_named_with_what_to_do(empty_database_urls, world):
    platform = Platform(make_settings(empty_database_urls, world))
    make_roles(platform.settings)
    with pytest.raises(ConfigurationError, match="db upgrade"):
        health.queue(platform)
    platform.close()
