"""What every request has: an id, which all its lines carry and its answer returns, and a line of its own.

Owns the header ``X-Request-Id`` and when ids are bound and forgotten. Webhooks tell by themselves what
became of them, and health and metrics are asked too often to be worth a line.
"""

from __future__ import annotations

from flask import Flask, Response, g, request

from app.http.bodies import discard_body
from app.observability import context
from app.observability.logging import get_logger

HEADER = "X-Request-Id"
_SILENT = ("/health", "/metrics")

log = get_logger(__name__)


def init_app(app: Flask) -> None:
    """Give each request its id before anything else looks at it."""
    app.before_request(_begin)
    app.after_request(_end)
    app.teardown_request(_forget)


def _begin() -> None:
    context.begin_request(request.headers.get(HEADER))


def _end(response: Response) -> Response:
    """Return the id, and say what was asked and answered: by its rule, because a path may hold a token."""
    if response.status_code >= 400:
        discard_body()
    request_id = context.ids().get("request_id")
    if request_id:
        response.headers[HEADER] = request_id
    rule = request.url_rule.rule if request.url_rule else None
    accepted_webhook = request.blueprint == "webhooks" and response.status_code < 300
    if not accepted_webhook and not g.get("told") and not (rule or "").startswith(_SILENT):
        log.info(
            "request.answered",
            method=request.method,
            route=rule,
            status=response.status_code,
            duration_ms=context.request_ms(),
        )
    return response


def _forget(_error: BaseException | None) -> None:
    context.end_request()
