"""Errors as RFC 9457 problem JSON. Owns how a failure looks from outside; never shows an exception's insides."""

from __future__ import annotations

from typing import Any

import orjson
from flask import Flask, Response, g
from werkzeug.exceptions import HTTPException

from app.errors import DatabaseUnavailable, InvalidInput, NotFound, RequestRefused, VoicedeskError
from app.observability import context
from app.observability.errors import report
from app.observability.logging import get_logger

RETRY_AFTER_SECONDS = 5

log = get_logger(__name__)


def problem(status: int, code: str, detail: str, **extra: Any) -> Response:
    """A problem document; ``code`` is for machines, ``detail`` for people."""
    title = {
        400: "Bad request",
        401: "Not authenticated",
        403: "Refused",
        404: "Not found",
        405: "Method not allowed",
        409: "In conflict",
        413: "Too large",
        415: "Unsupported content type",
        422: "Not understood",
        429: "Too many requests",
        502: "Refused elsewhere",
        503: "Unavailable",
    }.get(status, "Error")
    g.problem_code = code
    document = {"type": "about:blank", "title": title, "status": status, "code": code, "detail": detail, **extra}
    return Response(orjson.dumps(document), status=status, content_type="application/problem+json")


def init_app(app: Flask) -> None:
    """Turn every failure of a request into a problem document."""
    app.register_error_handler(RequestRefused, _refused)
    app.register_error_handler(NotFound, lambda error: problem(404, error.code, str(error)))
    app.register_error_handler(InvalidInput, lambda error: problem(400, error.code, str(error)))
    app.register_error_handler(DatabaseUnavailable, unavailable)
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(Exception, _unexpected)


def _refused(error: RequestRefused) -> Response:
    g.told = True
    log.warning("webhook.refused", code=error.code, status=error.status, duration_ms=context.request_ms())
    return problem(error.status, error.code, str(error))


def unavailable(error: VoicedeskError) -> Response:
    """503: the database is away."""
    # 503 and never a 4xx: a provider that retries must take this for a failure of ours
    _report(error, "request.unavailable")
    response = problem(503, error.code, "The database is away; nothing was stored. Send it again.")
    response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return response


def _http(error: HTTPException) -> Response:
    status = error.code or 500
    response = problem(status, (error.name or "error").lower().replace(" ", "_"), error.description or "")
    for name, value in error.get_headers():  # which methods are allowed, when to come back
        if name != "Content-Type":
            response.headers[name] = value
    return response


def _unexpected(error: Exception) -> Response:
    _report(error, "request.failed")
    return problem(500, "internal", "Something went wrong here; it has been logged.")


def _report(error: Exception, event: str) -> None:
    """One line, one count and one report of a request that failed here."""
    g.told = True
    report(error, where="web", event=event, duration_ms=context.request_ms())
