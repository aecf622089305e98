"""A person's consent to their calendar: the page at Google that asks for it, and the code that it gives.

Owns the two steps of OAuth's authorization code flow with PKCE (RFC 6749, 4.1; RFC 7636) as Google serves
them (developers.google.com/identity/protocols/oauth2/web-server). Keeps nothing, and never retries: a code is
good once.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.parse import urlencode, urlsplit

import httplib2
from pydantic import SecretStr

from app.errors import CredentialsRefused, ProviderRefused, ProviderUnavailable
from app.integrations.google_calendar.calls import token_uri_beside
from app.integrations.google_calendar.failures import FULL_TIMEOUT_SECONDS, sort_answer, sort_silence
from app.integrations.google_calendar.tokens import GOOGLE_TOKEN_URI, SCOPES
from app.integrations.google_calendar.transport import OneTryHttp

_WHOLE_CALENDAR = "https://www.googleapis.com/auth/calendar"
GOOGLE_CONSENT_URI = "https://accounts.google.com/o/oauth2/v2/auth"


@dataclass(frozen=True, slots=True)
class OAuthClient:
    """Our own registration at Google, in whose name people are asked."""

    client_id: str
    client_secret: SecretStr


class Consents:
    """Google's page of consent and its token endpoint; for a stand-in of Google, those beside the API."""

    def __init__(self, base_url: str) -> None:
        self._token_uri = token_uri_beside(base_url)
        parts = urlsplit(base_url)
        is_google = self._token_uri == GOOGLE_TOKEN_URI
        self._page = GOOGLE_CONSENT_URI if is_google else f"{parts.scheme}://{parts.netloc}/google/o/oauth2/v2/auth"

    def link(self, client_id: str, *, redirect_uri: str, state: str, verifier: str) -> str:
        """The page to open. ``verifier`` stays here (43 to 128 characters): only its digest is in the link."""
        asked = {
            "client_id": client_id,
            "redirect_uri": redirect_uri,
            "response_type": "code",
            "scope": " ".join(SCOPES),
            "state": state,
            "code_challenge": challenge_of(verifier),
            "code_challenge_method": "S256",
            "access_type": "offline",  # or there is no refresh token
            "prompt": "consent",  # or there is none the second time
        }
        return f"{self._page}?{urlencode(asked)}"

    def exchange(
        self,
        client: OAuthClient,
        *,
        code: str,
        redirect_uri: str,
        verifier: str,
        timeout_seconds: float = FULL_TIMEOUT_SECONDS,
    ) -> SecretStr:
        """The refresh token that a code stands for.

        Raises ProviderRefused when Google refuses the code or the person left out a permission,
        CredentialsRefused when it refuses our client, ProviderUnavailable, ProviderThrottled.
        """
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "client_id": client.client_id,
            "client_secret": client.client_secret.get_secret_value(),
            "redirect_uri": redirect_uri,
            "code_verifier": verifier,
        }
        answer = self._post(form, timeout_seconds)
        granted = str(answer.get("scope", "")).split()
        missing = [scope for scope in SCOPES if scope not in granted and _WHOLE_CALENDAR not in granted]
        if missing:
            raise ProviderRefused(
                "a permission was left out", provider_code="scope", advice="Open a new link and tick every permission."
            )
        token = answer.get("refresh_token")
        if not isinstance(token, str) or not token:
            raise ProviderRefused(
                "Google gave nothing that lasts", provider_code="no_refresh_token", advice="Open a new link."
            )
        return SecretStr(token)

    def _post(self, form: dict[str, str], timeout_seconds: float) -> dict[str, Any]:
        http = OneTryHttp()
        http.begin(timeout_seconds)
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        try:
            response, content = http.request(self._token_uri, "POST", body=urlencode(form), headers=headers)
        except (httplib2.HttpLib2Error, HTTPException, OSError) as error:
            raise sort_silence(error, timeout_seconds, maybe_done=True) from None
        finally:
            http.close()
        answer = _object(content)
        if response.status == 200 and answer is not None:
            return answer
        if response.status == 200:
            raise ProviderUnavailable("Google's answer cannot be understood")
        if answer is not None and answer.get("error") in ("invalid_client", "unauthorized_client"):
            raise CredentialsRefused(
                "Google does not accept our OAuth client",
                provider_code="invalid_client",
                advice="Check GOOGLE_CLIENT_ID and GOOGLE_CLIENT_SECRET, or the integration's own.",
            )
        if 400 <= response.status < 500 and response.status not in (408, 429):
            raise ProviderRefused(
                "Google does not accept the code", provider_code="invalid_grant", advice="Open a new link."
            )
        raise sort_answer(response.status, response, content, writes=True)


def challenge_of(verifier: str) -> str:
    """What S256 makes of a verifier."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def _object(content: bytes) -> dict[str, Any] | None:
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) else None
