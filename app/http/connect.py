"""The doors through which a person goes to Google's page of consent, and comes back.

Owns two plain pages, for whoever sits at the browser: it worked, or what to do. No API key can be asked for
here: the proof is the state, which only this house can have made. No page says whose calendar it is.
"""

from __future__ import annotations

from html import escape

from flask import Blueprint, Response, current_app, g, request

from app.errors import (
    CredentialsRefused,
    InvalidInput,
    PermanentFailure,
    ProviderRefused,
    TemporaryFailure,
    VoicedeskError,
)
from app.observability.logging import get_logger
from app.services.connecting import google
from app.services.platform import Platform

LONGEST_STATE = 4096
LONGEST_CODE = 2048
STATUSES = ((InvalidInput, 400), (ProviderRefused, 502), (CredentialsRefused, 502), (TemporaryFailure, 503))

blueprint = Blueprint("connect", __name__, url_prefix="/connect")
log = get_logger(__name__)


@blueprint.get("/google")
def ask_google() -> Response:
    """Lead the calendar's owner to Google's page, by the ticket that an alert has brought."""
    platform: Platform = current_app.extensions["platform"]
    ticket = request.args.get("ticket", "")
    try:
        if len(ticket) > LONGEST_STATE:
            raise InvalidInput("this link is not ours, or too old", code="consent_expired")
        link = google.open_page(platform, ticket)
    except (PermanentFailure, TemporaryFailure) as error:
        return _refuse(error)
    response = Response(status=302, headers={"Location": link})
    response.headers["Cache-Control"] = "no-store"
    return response


@blueprint.get("/google/callback")
def finish_google() -> Response:
    """Keep what the person consented to."""
    platform: Platform = current_app.extensions["platform"]
    state, code = request.args.get("state", ""), request.args.get("code", "")
    try:
        if len(state) > LONGEST_STATE or len(code) > LONGEST_CODE:
            raise InvalidInput("this link is not ours, or too old", code="consent_expired")
        google.check_state(platform, state)
        if not code:
            return _page(400, "Not connected", "The calendar's owner did not consent. The link can be opened again.")
        google.finish(platform, state=state, code=code)
    except (PermanentFailure, TemporaryFailure) as error:
        return _refuse(error)
    return _page(200, "Connected", "The calendar is connected. This window can be closed.")


def _refuse(error: VoicedeskError) -> Response:
    status = next((status for kind, status in STATUSES if isinstance(error, kind)), 500)
    g.told = True
    log.warning("consent.refused", code=error.code, status=status)
    return _page(status, "Not connected", f"{str(error).capitalize()}. {error.advice}".strip())


def _page(status: int, title: str, sentence: str) -> Response:
    content = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<h1>{escape(title)}</h1><p>{escape(sentence)}</p></html>"
    )
    response = Response(content, status=status, content_type="text/html; charset=utf-8")
    response.headers["Cache-Control"] = "no-store"
    return response
