"""Google's token endpoint: refresh tokens and signed service-account assertions become access tokens.

Owns who may act as whom and for how long (developers.google.com/identity/protocols/oauth2). Calendars
know only the principal, an e-mail address, that an access token stands for.
"""

from __future__ import annotations

import hmac
import secrets
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from flask import Response, jsonify, request

from sandbox.standins.google_consent import GrantRefusal, redeem_code
from sandbox.standins.google_events import GoogleRefusal
from sandbox.standins.state import State

TOKEN_SECONDS = 3599
LONGEST_ASSERTION_SECONDS = 3600
JWT_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
CALENDAR = "https://www.googleapis.com/auth/calendar"
# The token endpoint an assertion may be made out to: Google's own, or its stand-in here.
_GOOGLE_ENDPOINT = "https://oauth2.googleapis.com/token"
_WRITE = {CALENDAR, f"{CALENDAR}.events", f"{CALENDAR}.events.owned"}
_READ = _WRITE | {f"{CALENDAR}.readonly", f"{CALENDAR}.events.readonly", f"{CALENDAR}.events.owned.readonly"}
_FREEBUSY = {CALENDAR, f"{CALENDAR}.readonly", f"{CALENDAR}.freebusy", f"{CALENDAR}.events.freebusy"}
SCOPES = {"write": _WRITE, "read": _READ, "freebusy": _FREEBUSY}


class TokenDesk:
    """Issues access tokens and recognizes them."""

    def __init__(self, state: State) -> None:
        self._state = state

    def issue_token(self) -> tuple[Response, int]:
        """POST /token with one of the three grants."""
        grant = request.form.get("grant_type", "")
        try:
            with self._state.changing("google") as branch:
                refresh_token = None
                if grant == "refresh_token":
                    principal, scope = self._by_refresh_token(branch)
                elif grant == "authorization_code":
                    principal, scope, refresh_token = redeem_code(branch)
                elif grant == JWT_GRANT:
                    principal, scope = self._by_assertion(branch)
                else:
                    raise GrantRefusal("unsupported_grant_type", f"Invalid grant_type: {grant}")
                token = "ya29.standin-" + secrets.token_urlsafe(24)
                seconds = branch.get("token_seconds", TOKEN_SECONDS)
                held = {"principal": principal, "scope": scope, "expires_at": time.time() + seconds}
                branch.setdefault("access_tokens", {})[token] = held
        except GrantRefusal as refusal:
            return jsonify({"error": refusal.error, "error_description": refusal.description}), refusal.status
        answer = {"access_token": token, "expires_in": seconds, "scope": scope, "token_type": "Bearer"}
        if refresh_token is not None:
            answer["refresh_token"] = refresh_token
        return jsonify(answer), 200

    def principal(self, branch: dict[str, Any], purpose: str) -> str:
        """Who asks, by the Bearer token; raise 401 authError, or 403 when its scopes do not cover ``purpose``."""
        given = request.authorization
        held = branch.get("access_tokens", {}).get(given.token) if given and given.type == "bearer" else None
        if held is None or held["expires_at"] <= time.time():
            place = {"locationType": "header", "location": "Authorization"}
            raise GoogleRefusal(401, "authError", "Invalid Credentials", **place)
        if not SCOPES[purpose].intersection(held["scope"].split()):
            message = "Request had insufficient authentication scopes."
            raise GoogleRefusal(403, "insufficientPermissions", message)
        principal: str = held["principal"]
        return principal

    # --- controls ----------------------------------------------------------------------------

    def put_client(
        self, client_id: str, client_secret: str, refresh_token: str, email: str, scope: str = CALENDAR
    ) -> None:
        """A person (``email``) has consented: this refresh token now works for this client."""
        with self._state.changing("google") as branch:
            branch.setdefault("clients", {})[client_id] = client_secret
            consent = {"client_id": client_id, "principal": email, "scope": scope}
            branch.setdefault("refresh_tokens", {})[refresh_token] = consent

    def put_service_account(self, token_uri: str, email: str, delegated: bool = False) -> dict[str, str]:
        """Make a service account with a fresh key; the answer is its JSON key file."""
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        with self._state.changing("google") as branch:
            account = {"public_key": public.decode(), "token_uri": token_uri, "delegated": delegated}
            branch.setdefault("service_accounts", {})[email] = account
        return {
            "type": "service_account",
            "project_id": "standin",
            "private_key_id": secrets.token_hex(20),
            "private_key": private,
            "client_email": email,
            "client_id": str(secrets.randbelow(10**21)),
            "auth_uri": "https://accounts.google.com/o/oauth2/auth",
            "token_uri": token_uri,
            "universe_domain": "googleapis.com",
        }

    def revoke(self, refresh_token: str | None = None, email: str | None = None) -> None:
        """Take back a person's consent, or a service account's key; tokens given out die with it."""
        with self._state.changing("google") as branch:
            consents = branch.setdefault("refresh_tokens", {})
            gone = {email}
            for token, consent in list(consents.items()):
                if token == refresh_token or consent["principal"] == email:
                    gone.add(consents.pop(token)["principal"])
            branch.setdefault("service_accounts", {}).pop(email, None)
            self._drop_tokens(branch, gone)

    def expire_tokens(self, seconds: int | None = None) -> None:
        """All access tokens expire now; those given out from now on live ``seconds``."""
        with self._state.changing("google") as branch:
            branch["access_tokens"] = {}
            if seconds is not None:
                branch["token_seconds"] = seconds

    @staticmethod
    def _drop_tokens(branch: dict[str, Any], principals: set[str | None]) -> None:
        kept = {
            token: held
            for token, held in branch.get("access_tokens", {}).items()
            if held["principal"] not in principals
        }
        branch["access_tokens"] = kept

    # --- grants ------------------------------------------------------------------------------

    @staticmethod
    def _by_refresh_token(branch: dict[str, Any]) -> tuple[str, str]:
        client_id = request.form.get("client_id", "")
        known = branch.get("clients", {}).get(client_id)
        if known is None:
            raise GrantRefusal("invalid_client", "The OAuth client was not found.", 401)
        if not hmac.compare_digest(known.encode(), request.form.get("client_secret", "").encode()):
            raise GrantRefusal("invalid_client", "Unauthorized", 401)
        consent = branch.get("refresh_tokens", {}).get(request.form.get("refresh_token"))
        if consent is None or consent["client_id"] != client_id:
            raise GrantRefusal("invalid_grant", "Token has been expired or revoked.")
        return consent["principal"], consent["scope"]

    @staticmethod
    def _by_assertion(branch: dict[str, Any]) -> tuple[str, str]:
        assertion = request.form.get("assertion", "")
        try:
            issuer = jwt.decode(assertion, options={"verify_signature": False}).get("iss")
        except jwt.InvalidTokenError:
            raise GrantRefusal("invalid_grant", "Bad Request") from None
        account = branch.get("service_accounts", {}).get(issuer)
        if account is None:
            raise GrantRefusal("invalid_grant", "Invalid grant: account not found")
        try:
            claims = jwt.decode(
                assertion,
                account["public_key"],
                algorithms=["RS256"],
                audience=[_GOOGLE_ENDPOINT, account["token_uri"]],
                leeway=300,
                options={"require": ["exp", "iat", "aud", "iss"]},
            )
        except jwt.InvalidSignatureError:
            raise GrantRefusal("invalid_grant", "Invalid JWT Signature.") from None
        except jwt.InvalidTokenError:
            raise GrantRefusal("invalid_grant", "Invalid JWT: check your iat, exp and aud values.") from None
        if claims["exp"] - claims["iat"] > LONGEST_ASSERTION_SECONDS:
            raise GrantRefusal("invalid_grant", "Invalid JWT: Token must be a short-lived token (60 minutes).")
        if not claims.get("scope"):
            raise GrantRefusal("invalid_scope", "Invalid OAuth scope or ID token audience provided.")
        subject = str(claims.get("sub", issuer))
        if subject != issuer and not account["delegated"]:
            message = "Client is unauthorized to retrieve access tokens using this method."
            raise GrantRefusal("unauthorized_client", message, 401)
        return subject, str(claims["scope"])
