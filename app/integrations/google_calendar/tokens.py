"""Access tokens: who we are to Google, fetched once an hour and not once a call.

Owns fetching, keeping and dropping them. One thread fetches for all who wait; nobody waits longer
than the caller's time. Never logs, and never keeps a token anywhere but in memory.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.client import HTTPException
from typing import Any

import google_auth_httplib2
import httplib2
from google.auth import exceptions
from google.oauth2 import credentials as consent
from google.oauth2 import service_account

from app.errors import CredentialsRefused, ProviderUnavailable
from app.integrations.deadline import Deadline
from app.integrations.google_calendar.credentials import GoogleCalendarCredentials
from app.integrations.google_calendar.failures import sort_answer, sort_refusal, sort_silence
from app.integrations.google_calendar.transport import OneTryHttp

GOOGLE_TOKEN_URI = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address
# The least that lets us see when somebody is busy and keep our own events.
SCOPES = (
    "https://www.googleapis.com/auth/calendar.events",
    "https://www.googleapis.com/auth/calendar.freebusy",
)
MOST_TOKENS = 10_000
_RENEW_BEFORE_SECONDS = 120.0
_DEFAULT_LIFE_SECONDS = 600.0
_PASSING_ERRORS = frozenset({"internal_failure", "server_error", "temporarily_unavailable"})


@dataclass(slots=True)
class _Kept:
    """One integration's token; ``good_until`` is monotonic."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    token: str | None = None
    good_until: float = 0.0

    def fresh(self) -> str | None:
        return self.token if time.monotonic() < self.good_until else None


class AccessTokens:
    """The tokens of all integrations of one process. Thread-safe."""

    def __init__(self, default_token_uri: str) -> None:
        self._default_token_uri = default_token_uri
        self._kept: dict[tuple[int, GoogleCalendarCredentials], _Kept] = {}

    def get(
        self, credentials: GoogleCalendarCredentials, http: OneTryHttp, timeout_seconds: float, *, of_seconds: float
    ) -> str:
        """A token that Google should accept, fetched if need be within ``timeout_seconds``.

        ``of_seconds`` is what the whole try was given: it decides whose failure a time-out is.
        Raises CredentialsRefused, ProviderThrottled, ProviderUnavailable or DeadlineExceeded; the
        calendar has not been asked by then, so nothing was done.
        """
        kept = self._entry(credentials)
        token = kept.fresh()
        if token is not None:
            return token
        deadline = Deadline.within(timeout_seconds)
        if not kept.lock.acquire(timeout=deadline.remaining()):
            raise sort_silence(TimeoutError(), of_seconds, maybe_done=False)
        try:
            token = kept.fresh()
            if token is None:
                http.begin(deadline.remaining())
                token, life = self._fetch(credentials, http, of_seconds)
                kept.token, kept.good_until = token, time.monotonic() + life
            return token
        finally:
            kept.lock.release()

    def drop(self, credentials: GoogleCalendarCredentials, token: str) -> None:
        """Google refused this token: fetch another next time (unless another thread has already)."""
        kept = self._entry(credentials)
        if kept.token == token:
            kept.good_until = 0.0

    def _entry(self, credentials: GoogleCalendarCredentials) -> _Kept:
        """By process, too: a lock held while the process forked would stay locked in the child for ever."""
        if len(self._kept) > MOST_TOKENS:
            self._kept.clear()
        return self._kept.setdefault((os.getpid(), credentials), _Kept())

    def _fetch(self, credentials: GoogleCalendarCredentials, http: OneTryHttp, of_seconds: float) -> tuple[str, float]:
        """A new token, and for how many seconds to use it."""
        try:
            ours = self._as_google_credentials(credentials)
            ours.refresh(_asking_through(http))
        except exceptions.RefreshError as error:
            raise sort_refusal(error.args[1] if len(error.args) > 1 else None) from None
        except (exceptions.TransportError, httplib2.HttpLib2Error, HTTPException, OSError) as error:
            raise sort_silence(error, of_seconds, maybe_done=False) from None
        except (exceptions.GoogleAuthError, ValueError):
            raise CredentialsRefused("the service account's key file cannot be used") from None
        if not isinstance(ours.token, str):
            raise ProviderUnavailable("Google gave no token", maybe_done=False)
        return ours.token, _seconds_of_use(ours.expiry)

    def _as_google_credentials(self, credentials: GoogleCalendarCredentials) -> Any:
        account = credentials.account()
        if account is not None:
            token_uri = credentials.token_uri or account.get("token_uri") or self._default_token_uri
            return service_account.Credentials.from_service_account_info(  # type: ignore[no-untyped-call]
                {**account, "token_uri": token_uri}, scopes=SCOPES, subject=credentials.subject
            )
        if credentials.refresh_token is None or credentials.client_secret is None:
            raise exceptions.RefreshError("nothing to sign in with", {"error": "not_configured"})  # type: ignore[no-untyped-call]
        return consent.Credentials(  # type: ignore[no-untyped-call]
            None,
            refresh_token=credentials.refresh_token.get_secret_value(),
            token_uri=credentials.token_uri or self._default_token_uri,
            client_id=credentials.client_id,
            client_secret=credentials.client_secret.get_secret_value(),
        )


def _asking_through(http: OneTryHttp) -> Any:
    """A transport for google-auth that ends at the first passing failure.

    google-auth by itself sleeps 1 s and 2 s between three tries at the token endpoint, longer than
    anybody on the line waits.
    """
    ask = google_auth_httplib2.Request(http)

    def once(url: str, method: str = "GET", body: Any = None, headers: Any = None, **_: Any) -> Any:
        answer = ask(url, method=method, body=body, headers=headers)
        if answer.status in (408, 429) or answer.status >= 500:
            raise sort_answer(answer.status, answer.headers, answer.data, writes=False)
        if answer.status != 200 and any(word.encode() in answer.data for word in _PASSING_ERRORS):
            raise ProviderUnavailable("Google's token endpoint has a passing failure", maybe_done=False)
        return answer

    return once


def _seconds_of_use(expiry: datetime | None) -> float:
    """Until shortly before it expires; of a very short life, half."""
    if expiry is None:
        return _DEFAULT_LIFE_SECONDS
    aware = expiry if expiry.tzinfo else expiry.replace(tzinfo=UTC)
    life = (aware - datetime.now(UTC)) / timedelta(seconds=1)
    return max(life - _RENEW_BEFORE_SECONDS, life / 2, 0.0)
