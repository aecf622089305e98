"""How Slack takes alerts: one message to one channel, through Slack's own library.

Owns the wire and the escaping; what is worth an alert is a service's.
"""

from __future__ import annotations

import socket
from datetime import timedelta
from http.client import HTTPException
from typing import Any
from urllib.error import URLError

from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError, SlackClientError

from app.errors import CredentialsRefused, ProviderRefused, ProviderThrottled, ProviderUnavailable, VoicedeskError
from app.integrations.breaker import SLACK, protected

TIMEOUT_SECONDS = 5
_CREDENTIALS = {"invalid_auth", "not_authed", "token_revoked", "token_expired", "account_inactive"}
_TEMPORARY = {"internal_error", "fatal_error", "service_unavailable", "request_timeout"}


class SlackAlerts:
    """Posts to one channel with one bot token."""

    def __init__(self, base_url: str, token: str, channel: str) -> None:
        self._base_url = base_url
        self._token = token
        self._channel = channel

    @protected(SLACK)
    def post(
        self, text: str, *, blocks: list[dict[str, Any]] | None = None, timeout_seconds: int = TIMEOUT_SECONDS
    ) -> None:
        """Post ``text`` (already escaped where it came from outside), with blocks if there are any.

        No retry here: Slack has no idempotency key, so a repetition could post twice.
        Raises ProviderThrottled with Slack's Retry-After, ProviderUnavailable, CredentialsRefused, ProviderRefused.
        """
        self._call("chat.postMessage", timeout_seconds, channel=self._channel, text=text, blocks=blocks)

    @protected(SLACK)
    def check(self, *, timeout_seconds: int = TIMEOUT_SECONDS) -> None:
        """Whether Slack accepts the token; raises CredentialsRefused."""
        self._call("auth.test", timeout_seconds)

    def _call(self, method: str, timeout_seconds: int, **fields: Any) -> None:
        # a client a call: it is cheap beside the call, and the library's is not made for many threads
        client = WebClient(self._token, base_url=self._base_url, timeout=timeout_seconds, retry_handlers=[])
        try:
            client.api_call(method, json={name: value for name, value in fields.items() if value is not None})
        except SlackApiError as error:
            raise _sort(error) from None
        except (URLError, SlackClientError, HTTPException, TimeoutError, socket.error) as error:
            refused = isinstance(getattr(error, "reason", None), ConnectionRefusedError)
            raise ProviderUnavailable("Slack did not answer", maybe_done=not refused) from None


def escape(text: str) -> str:
    """Text from outside, so that it can mention nobody (Slack's documentation, "Formatting text")."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _sort(error: SlackApiError) -> VoicedeskError:
    response: Any = error.response
    status, word = int(response.status_code), str(response.get("error", ""))
    if status == 429 or word == "ratelimited":
        wait = str(response.headers.get("Retry-After") or "1")
        seconds = int(wait) if wait.isdecimal() else 1
        return ProviderThrottled("Slack asks to slow down", retry_after=timedelta(seconds=seconds))
    if status >= 500 or word in _TEMPORARY:
        return ProviderUnavailable("Slack answered with an error of its own")
    if word in _CREDENTIALS:
        return CredentialsRefused("Slack refused the token", provider_code=word)
    return ProviderRefused("Slack refused the message", provider_code=word)
