"""Google's page of consent: the person behind it says yes at once (or no), and a code travels back.

Owns authorization codes, PKCE and which addresses may be sent one (RFC 6749, RFC 7636); access tokens are in
google_oauth.py. A code is good once and for ten minutes.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import time
from typing import Any
from urllib.parse import urlencode

from flask import Response, jsonify, redirect, request

from sandbox.standins.state import State

CODE_SECONDS = 600


class GrantRefusal(Exception):
    """The token endpoint answers this OAuth error."""

    def __init__(self, error: str, description: str, status: int = 400) -> None:
        super().__init__(description)
        self.error, self.description, self.status = error, description, status


class ConsentPage:
    """Where a person is asked; what they answer is set by ``google_person``."""

    def __init__(self, state: State) -> None:
        self._state = state

    def ask_consent(self) -> Any:
        """GET the page: straight on to the redirect address, as after a click on Allow."""
        asked = request.args
        with self._state.changing("google") as branch:
            registered = branch.get("oauth_clients", {}).get(asked.get("client_id", ""))
            if registered is None:
                return _error("invalid_client", "The OAuth client was not found.", 401)
            if asked.get("redirect_uri") not in registered["redirect_uris"]:
                return _error("redirect_uri_mismatch", "The redirect URI does not match the ones authorized.", 400)
            if asked.get("response_type") != "code" or not asked.get("scope"):
                return _error("invalid_request", "Missing required parameter.", 400)
            person = branch.get("person") or {}
            back = {"state": asked.get("state", "")}
            if person.get("refuses"):
                return redirect(f"{asked['redirect_uri']}?{urlencode(back | {'error': 'access_denied'})}")
            code = "4/standin-" + secrets.token_urlsafe(24)
            branch.setdefault("codes", {})[code] = {
                "client_id": asked["client_id"],
                "redirect_uri": asked["redirect_uri"],
                "scope": person.get("scope") or asked["scope"],
                "challenge": asked.get("code_challenge"),
                "method": asked.get("code_challenge_method", "plain"),
                "principal": person.get("email", "owner@example.com"),
                "lasts": asked.get("access_type") == "offline" and asked.get("prompt") == "consent",
                "expires_at": time.time() + CODE_SECONDS,
            }
        return redirect(f"{asked['redirect_uri']}?{urlencode(back | {'code': code})}")

    # --- controls ----------------------------------------------------------------------------

    def controls(self) -> dict[str, Any]:
        """What tests may set."""
        return {"google_oauth_client": self.put_oauth_client, "google_person": self.put_person}

    def put_oauth_client(self, client_id: str, client_secret: str, redirect_uris: list[str]) -> None:
        """Register an application that may ask people, and where they may be sent back to."""
        with self._state.changing("google") as branch:
            branch.setdefault("clients", {})[client_id] = client_secret
            branch.setdefault("oauth_clients", {})[client_id] = {"redirect_uris": redirect_uris}

    def put_person(self, email: str = "owner@example.com", refuses: bool = False, scope: str | None = None) -> None:
        """Who sits at the browser; whether they refuse, and what they allow when it is less than was asked."""
        with self._state.changing("google") as branch:
            branch["person"] = {"email": email, "refuses": refuses, "scope": scope}


def redeem_code(branch: dict[str, Any]) -> tuple[str, str, str | None]:
    """The principal, the scope and (for offline access) the refresh token that the request's code stands for."""
    form = request.form
    client_id = form.get("client_id", "")
    known = branch.get("clients", {}).get(client_id)
    if known is None or not hmac.compare_digest(known.encode(), form.get("client_secret", "").encode()):
        raise GrantRefusal("invalid_client", "Unauthorized", 401)
    held = branch.get("codes", {}).pop(form.get("code", ""), None)
    if held is None or held["client_id"] != client_id or held["expires_at"] < time.time():
        raise GrantRefusal("invalid_grant", "Malformed auth code.")
    if held["redirect_uri"] != form.get("redirect_uri"):
        raise GrantRefusal("redirect_uri_mismatch", "Bad Request")
    if held["challenge"] and not _matches(held, form.get("code_verifier", "")):
        raise GrantRefusal("invalid_grant", "Invalid code verifier.")
    if not held["lasts"]:
        return held["principal"], held["scope"], None
    refresh_token = "1//standin-" + secrets.token_urlsafe(24)
    consent = {"client_id": client_id, "principal": held["principal"], "scope": held["scope"]}
    branch.setdefault("refresh_tokens", {})[refresh_token] = consent
    return held["principal"], held["scope"], refresh_token


def _matches(held: dict[str, Any], verifier: str) -> bool:
    if held["method"] == "S256":
        verifier = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    return hmac.compare_digest(str(held["challenge"]).encode(), verifier.encode())


def _error(error: str, description: str, status: int) -> tuple[Response, int]:
    return jsonify({"error": error, "error_description": description}), status
