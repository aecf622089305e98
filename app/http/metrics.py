"""The door of Prometheus, and the stopwatch of every request.

Owns ``/metrics``: counts alone, for whoever has METRICS_TOKEN when that is set; no quota, no cookie. Owns
when a request begins and ends, and what a refused webhook counts as. What there is to tell is the services'.
"""

from __future__ import annotations

import hmac
import time

from flask import Blueprint, Flask, Response, current_app, g, request

from app.http.problems import problem
from app.observability import metrics
from app.observability.counting import FolderBusy
from app.observability.errors import report
from app.services import measurements

blueprint = Blueprint("metrics", __name__)


def init_app(app: Flask) -> None:
    """Time every request, and count the webhooks that are refused."""
    app.before_request(_begin)
    app.after_request(_end)


@blueprint.get("/metrics")
def show_metrics() -> Response:
    """Everything measured, in the format that was asked for: Prometheus's text, or OpenMetrics."""
    platform = current_app.extensions["platform"]
    token = platform.settings.metrics_token
    if token and not _is_bearer(token):
        response = problem(401, "token_needed", "Send METRICS_TOKEN as a bearer token.")
        response.headers["WWW-Authenticate"] = 'Bearer realm="metrics"'
        return response
    try:
        body, content_type = measurements.exposition(platform, request.headers.get("Accept", ""))
    except (FolderBusy, OSError) as error:
        report(error, where="web", event="metrics.unreadable")
        return problem(503, "unreadable", "The counts cannot be read just now. Ask again.")
    response = Response(body, content_type=content_type)
    response.headers["Cache-Control"] = "no-store"
    return response


def _is_bearer(token: str) -> bool:
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode())


def _begin() -> None:
    g.began = time.perf_counter()


def _end(response: Response) -> Response:
    rule = request.url_rule.rule if request.url_rule else metrics.OTHER
    began = g.get("began")
    if began is not None:
        metrics.request_ended(rule, response.status_code, time.perf_counter() - began)
    provider = g.get("provider")  # of a webhook, once its door is known
    if provider and response.status_code >= 400:
        metrics.webhook_refused(provider, g.get("problem_code", metrics.OTHER))
    return response
