"""Voicedesk: the factory. A table of contents; every line is somebody else's work."""

from __future__ import annotations

from pathlib import Path

from flask import Flask
from flask_migrate import Migrate
from werkzeug.middleware.proxy_fix import ProxyFix

from app.cli import register as register_commands
from app.config import Settings, load_settings
from app.http import api, connect, headers, health, limits, metrics, problems, requests, webhooks
from app.http.loop_door import LoopDoor
from app.http.quick_door import QuickDoor
from app.models import Base
from app.observability.logging import configure_logging
from app.observability.sentry import configure_sentry
from app.services.platform import Platform

ROOT = Path(__file__).resolve().parents[1]


def create_app(settings: Settings | None = None) -> Flask:
    """Build the application; raises ConfigurationError naming every setting that is wrong."""
    settings = settings or load_settings()
    configure_logging(settings)
    configure_sentry(settings)
    app = Flask("voicedesk", static_folder=None)
    app.config["SETTINGS"] = settings
    app.config["MAX_CONTENT_LENGTH"] = settings.max_webhook_bytes
    app.extensions["platform"] = Platform(settings)
    Migrate(app, Base, directory=str(ROOT / "migrations"))
    requests.init_app(app)
    metrics.init_app(app)
    problems.init_app(app)
    app.register_blueprint(webhooks.blueprint)
    app.register_blueprint(health.blueprint)
    app.register_blueprint(metrics.blueprint)
    app.register_blueprint(api.blueprint)
    app.register_blueprint(connect.blueprint)
    headers.init_app(app, settings)
    limits.init_app(app, settings, app.extensions["platform"])
    app.extensions["loop_door"] = LoopDoor(app.extensions["platform"], settings)
    app.wsgi_app = QuickDoor(app.wsgi_app, app.extensions["platform"], settings)  # type: ignore[method-assign]
    register_commands(app)
    if settings.trusted_proxies:
        hops = settings.trusted_proxies
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=hops, x_proto=hops)  # type: ignore[method-assign]
    return app
