"""Who asks: the key of a request, recognised once a request and remembered for its duration.

Owns where a key may stand in a request. What a key is worth is in ``services/api_keys.py``.
"""

from __future__ import annotations

from flask import current_app, g, request

from app.errors import KeyMissing, KeyRefused, RequestRefused, ScopeMissing, VoicedeskError
from app.observability import context
from app.services.api_keys import Caller
from app.services.platform import Platform

REALM = 'Bearer realm="voicedesk"'


def caller() -> Caller:
    """Who asks; raises KeyMissing, KeyRefused, and DatabaseUnavailable when that cannot be found out."""
    found = _recognised()
    if isinstance(found, VoicedeskError):
        raise found
    return found


def caller_with(scope: str) -> Caller:
    """The same, if the key may do this; raises ScopeMissing otherwise."""
    found = caller()
    if scope not in found.scopes:
        raise ScopeMissing(f"the key has not the scope `{scope}`")
    return found


def find_caller() -> Caller | None:
    """Who asks, or None without a valid key."""
    found = _recognised()
    return found if isinstance(found, Caller) else None


def is_refused() -> bool:
    """Whether the request certainly shows no valid key."""
    return isinstance(_recognised(), RequestRefused)


def _recognised() -> Caller | VoicedeskError:
    if "caller" not in g:
        try:
            g.caller = _recognise()
            context.bind(org_id=str(g.caller.org_id))
        except VoicedeskError as error:
            g.caller = error
    found: Caller | VoicedeskError = g.caller
    return found


def _recognise() -> Caller:
    platform: Platform = current_app.extensions["platform"]
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    bearer = token.strip() if scheme.lower() == "bearer" else ""
    shown = {key for key in (bearer, request.headers.get("X-Api-Key", "").strip()) if key}
    if not shown:
        raise KeyMissing
    if len(shown) > 1:
        raise KeyRefused("two different keys were given")
    return platform.api_keys.caller(shown.pop())
