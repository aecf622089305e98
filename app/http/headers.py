"""Headers for browsers: what every answer says, and which origins may call the API from a page.

Webhook routes have no CORS on purpose: their callers are servers, which ask for no leave; a browser that
posted there would be somebody's page speaking with a provider's secret, and no answer should help it.
"""

from __future__ import annotations

import re

from flask import Flask, Response, request
from flask_cors import CORS

from app.config import Settings

API_PATHS = r"/api/.*"
METHODS = ["GET", "HEAD", "POST", "OPTIONS"]
REQUEST_HEADERS = ["Authorization", "Content-Type", "Idempotency-Key", "X-Api-Key", "X-Request-Id"]
ANSWER_HEADERS = [
    "Location",
    "RateLimit-Limit",
    "RateLimit-Remaining",
    "RateLimit-Reset",
    "Retry-After",
    "X-Request-Id",
]
PREFLIGHT_SECONDS = 600
ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}
STRICT_TRANSPORT = "max-age=31536000"


def always(settings: Settings) -> dict[str, str]:
    """What every answer of this installation says."""
    is_https = settings.public_base_url.startswith("https://")
    return {**ALWAYS, "Strict-Transport-Security": STRICT_TRANSPORT} if is_https else ALWAYS


def init_app(app: Flask, settings: Settings) -> None:
    """Add the headers to every answer, and CORS to the API's for the origins that are listed."""
    said = always(settings)

    def harden(response: Response) -> Response:
        for name, value in said.items():
            response.headers.setdefault(name, value)
        if request.path.startswith("/api/"):
            response.headers.setdefault("Cache-Control", "no-store")
        return response

    app.after_request(harden)
    if settings.cors_origins:
        CORS(
            app,
            resources={API_PATHS: {}},
            # as patterns that match nothing else: the library would read some plain origins as patterns
            origins=[re.compile(re.escape(origin) + r"\Z", re.IGNORECASE) for origin in settings.cors_origins],
            methods=METHODS,
            allow_headers=REQUEST_HEADERS,
            expose_headers=ANSWER_HEADERS,
            max_age=PREFLIGHT_SECONDS,
            supports_credentials=False,  # keys are sent as headers; there are no cookies
            always_send=False,
        )
