"""One request to Google Calendar and its answer, for whoever knows what to ask.

Owns the description of the API, the connection and the access token of each request. Made through
google-api-python-client and its built-in description. Never retries, but for a token that is refused.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from http.client import HTTPException
from typing import Any, TypeVar
from urllib.parse import urlsplit

import google_auth_httplib2
import httplib2
from google.oauth2.credentials import Credentials
from googleapiclient.discovery import build
from googleapiclient.errors import HttpError

from app.integrations.deadline import Deadline
from app.integrations.google_calendar.credentials import GoogleCalendarCredentials
from app.integrations.google_calendar.failures import sort_answer, sort_silence
from app.integrations.google_calendar.tokens import GOOGLE_TOKEN_URI, AccessTokens
from app.integrations.google_calendar.transport import ThreadHttp

# At WARNING it writes whole answers into the log, and those carry names and addresses.
logging.getLogger("googleapiclient.http").setLevel(logging.ERROR)

T = TypeVar("T")


class Calls:
    """Calendar API v3 under one base URL, for any credentials. Thread-safe."""

    def __init__(self, base_url: str) -> None:
        self._tokens = AccessTokens(token_uri_beside(base_url))
        self._http = ThreadHttp()
        # Built once, from the description that comes with the package; each request brings its own
        # connection (github.com/googleapis/google-api-python-client, docs/thread_safety.md).
        self._api = build(
            "calendar",
            "v3",
            http=httplib2.Http(),
            client_options={"api_endpoint": base_url},
            cache_discovery=False,
            static_discovery=True,
        )

    def _ask(
        self,
        credentials: GoogleCalendarCredentials,
        request: Any,
        read: Callable[[Any], T],
        timeout_seconds: float,
        *,
        writes: bool = False,
    ) -> T:
        """Send one request and read its answer, the access token and all within ``timeout_seconds``.

        A token that Google refuses (401: nothing was done) is replaced once.
        """
        ends = Deadline.within(timeout_seconds)
        http = self._http.get()
        for replaced in (False, True):
            token = self._tokens.get(credentials, http, ends.remaining(), of_seconds=timeout_seconds)
            http.begin(ends.remaining())
            bearer = Credentials(token)  # type: ignore[no-untyped-call]
            authorized = google_auth_httplib2.AuthorizedHttp(bearer, http=http, max_refresh_attempts=0)
            try:
                return read(request.execute(http=authorized, num_retries=0))
            except HttpError as error:
                if error.resp.status == 401:
                    self._tokens.drop(credentials, token)
                    if not replaced:
                        continue
                raise sort_answer(error.resp.status, error.resp, error.content, writes=writes) from None
            except (httplib2.HttpLib2Error, HTTPException, OSError, ValueError) as error:
                raise sort_silence(error, timeout_seconds, maybe_done=writes and http.sent) from None
        raise AssertionError("unreachable: the second refusal was raised")


def token_uri_beside(base_url: str) -> str:
    """Google's token endpoint; for a stand-in of Google, the one beside it."""
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    if host == "googleapis.com" or host.endswith(".googleapis.com"):
        return GOOGLE_TOKEN_URI
    return f"{parts.scheme}://{parts.netloc}/token"
