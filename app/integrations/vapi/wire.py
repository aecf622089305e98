"""One request to Vapi's REST interface and one sorted answer.

Owns the connection, its time limits and the sorting of failures into ``app.errors``. Knows no
operation, and never puts Vapi's own words into an error: they may repeat what was sent.
"""

from __future__ import annotations

import os
import threading
from typing import Any

import requests
from requests.auth import AuthBase

from app.errors import (
    ConfigurationError,
    CredentialsRefused,
    DeadlineExceeded,
    ProviderRefused,
    ProviderThrottled,
    ProviderUnavailable,
    ResourceGone,
    VoicedeskError,
)
from app.integrations.http_errors import BoundedAdapter, parse_retry_after, sort_failure
from app.integrations.reading import read_json

FULL_TIMEOUT_SECONDS = 10.0
# A try shorter than this ran out because its caller had no time, which says nothing about Vapi.
SHORT_TIMEOUT_SECONDS = 2.0


class _Bearer(AuthBase):
    """Sets the header itself, so that a netrc file on the machine cannot replace it."""

    def __init__(self, private_key: str) -> None:
        if not private_key.strip().isprintable():
            raise ConfigurationError("Vapi's private key contains characters that no header can carry")
        self._header = f"Bearer {private_key.strip()}".encode().decode("latin-1")

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = self._header
        return request


class Wire:
    """Requests under one base URL and one private key. Thread-safe: every thread has its own session."""

    def __init__(self, base_url: str, private_key: str) -> None:
        self._base_url = base_url.rstrip("/")
        self._auth = _Bearer(private_key)
        self._local = threading.local()

    def ask(
        self,
        method: str,
        path: str,
        *,
        timeout_seconds: float,
        query: dict[str, str] | None = None,
        body: dict[str, Any] | None = None,
    ) -> Any:
        """The JSON Vapi answers with, all of it within ``timeout_seconds``.

        Raises CredentialsRefused (401), ResourceGone (404), ProviderThrottled (429), ProviderRefused
        (other 4xx), ProviderUnavailable (5xx, no answer, no JSON) and, for a time-out of less than
        2 s, DeadlineExceeded. Only a POST may have been done when it fails.
        """
        writes = method == "POST"
        try:
            response = self._session().request(
                method,
                self._base_url + path,
                params=query,
                json=body,
                auth=self._auth,
                timeout=timeout_seconds,
                allow_redirects=False,
            )
        except requests.RequestException as error:
            failure = sort_failure("Vapi", error, at_full_limit=timeout_seconds >= SHORT_TIMEOUT_SECONDS)
            assert isinstance(failure, ProviderUnavailable | DeadlineExceeded)
            failure.maybe_done = failure.maybe_done and writes
            raise failure from None
        if response.status_code not in (200, 201):
            raise sort_answer(response.status_code, response.headers.get("Retry-After"), writes=writes)
        try:
            return read_json(response.content)
        except ValueError:
            raise ProviderUnavailable("Vapi's answer is not JSON", maybe_done=writes) from None

    def _session(self) -> requests.Session:
        """This thread's session; a forked child must not share its parent's connections."""
        if getattr(self._local, "pid", None) != os.getpid():
            session = requests.Session()
            for scheme in ("http://", "https://"):
                session.mount(scheme, BoundedAdapter())
            self._local.session, self._local.pid = session, os.getpid()
        kept: requests.Session = self._local.session
        return kept


def sort_answer(status: int, retry_after: str | None, *, writes: bool) -> VoicedeskError:
    """What an HTTP status other than success means, as an error to raise."""
    if status == 401:
        return CredentialsRefused("Vapi refused the private key", provider_code="401")
    if status == 404:
        return ResourceGone("Vapi does not know this", provider_code="404")
    if status == 429:
        return ProviderThrottled("Vapi asks to slow down", retry_after=parse_retry_after(retry_after))
    if 400 <= status < 500 and status != 408:
        return ProviderRefused("Vapi refused the request", provider_code=str(status))
    return ProviderUnavailable(
        "Vapi answered with an error of its own", maybe_done=writes, retry_after=parse_retry_after(retry_after)
    )
