"""The health door: cheap answers for monitors and balancers, each about its own part alone.

Owns routes and status codes; what is asked of whom is in the service.
"""

from __future__ import annotations

from typing import Any

import orjson
from flask import Blueprint, Response, current_app

from app.services import health
from app.services.platform import Platform

blueprint = Blueprint("health", __name__, url_prefix="/health")


@blueprint.get("", strict_slashes=False)
def show_life() -> Response:
    """The process lives."""
    return _answer(health.life())


@blueprint.get("/ready")
def show_readiness() -> Response:
    """Can this process take a webhook? Only "no" is 503."""
    return _answer(health.readiness(_platform()))


@blueprint.get("/database")
def show_database() -> Response:
    """Does the database answer?"""
    return _answer(health.database(_platform()))


@blueprint.get("/redis")
def show_redis() -> Response:
    """Does Redis answer, if it is configured?"""
    return _answer(health.redis(_platform()))


@blueprint.get("/queue")
def show_queue() -> Response:
    """Does work move?"""
    return _answer(health.queue(_platform()))


@blueprint.get("/vapi")
def show_vapi() -> Response:
    """What the last probe of Vapi's API found; never waits for one."""
    return _answer(health.vapi(_platform()))


def _platform() -> Platform:
    platform: Platform = current_app.extensions["platform"]
    return platform


def _answer(report: dict[str, Any]) -> Response:
    status = 503 if report["status"] == "unhealthy" else 200
    response = Response(orjson.dumps(report), status=status, content_type="application/json")
    response.headers["Cache-Control"] = "no-store"
    return response
