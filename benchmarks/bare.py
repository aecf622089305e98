"""Flask that does nothing but answer, for the measuring of what the framework and its server cost alone."""

from __future__ import annotations

from flask import Flask, Response

app = Flask(__name__)


@app.post("/webhooks/vapi/<token>")
def receive(token: str) -> Response:
    """An answer, whatever came."""
    return Response(b"{}", content_type="application/json")


@app.get("/health")
def health() -> Response:
    """It lives."""
    return Response(b"{}", content_type="application/json")
