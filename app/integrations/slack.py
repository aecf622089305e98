"""Alerts to operators in a Slack channel.

Owns the two calls (chat.postMessage, auth.test) and what Slack's errors mean. Decides neither what is
worth an alert nor what it says. Slack has no idempotency key: a post is tried once here, and
slack_sdk's own repetition after a broken connection is switched off.

Whether the channel takes posts can only be found out by posting: looking a channel up needs a scope
(channels:read) that posting does not. So `check_scopes` is what may be asked at any time, and
`check_channel` posts a marked message, for when somebody wants to see one arrive.
"""

from __future__ import annotations

import http.client
import re
import socket
import urllib.error
from collections.abc import Callable, Sequence
from typing import Any

from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError, SlackClientError
from slack_sdk.web import SlackResponse

from app.errors import (
    CredentialsRefused,
    DeadlineExceeded,
    ProviderRefused,
    ProviderThrottled,
    ProviderUnavailable,
    TemporaryFailure,
    VoicedeskError,
)
from app.integrations.breaker import SLACK, protected
from app.integrations.http_errors import parse_retry_after

FULL_TIMEOUT_SECONDS = 5.0
SCOPES = frozenset({"chat:write", "chat:write.public"})  # the second: public channels without an invitation
MARKED_TEXT = "Voicedesk: a test message. Alerts reach this channel; nothing is wrong."

# Slack docs, "chat.postMessage" and "auth.test", errors. Any other word is about this one request.
_TEMPORARY = frozenset({"internal_error", "fatal_error", "service_unavailable", "request_timeout"})
_CREDENTIALS = frozenset(
    {"not_authed", "invalid_auth", "account_inactive", "token_revoked", "token_expired", "missing_scope"}
)
_ADVICE = {
    "not_in_channel": "Invite the bot to the channel.",
    "channel_not_found": "Check SLACK_ALERT_CHANNEL; the id of the channel is the safest.",
    "is_archived": "Unarchive the channel, or set SLACK_ALERT_CHANNEL to another.",
}
_WORD = re.compile(r"[a-z][a-z_]{1,59}")


def escape(text: str) -> str:
    """Text from outside, unable to mention a channel or to link (Slack docs, "Formatting text: escaping")."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


class SlackAlerts:
    """One bot in one channel. Thread-safe.

    All methods raise CircuitOpen, ProviderUnavailable, ProviderThrottled, DeadlineExceeded,
    CredentialsRefused (the bot's token or its scopes) or ProviderRefused (the channel, the text).
    """

    def __init__(self, base_url: str, token: str, channel: str) -> None:
        self._base_url = base_url
        self._token = token
        self._channel = channel

    def post(
        self,
        text: str,
        *,
        blocks: Sequence[dict[str, Any]] | None = None,
        timeout_seconds: float = FULL_TIMEOUT_SECONDS,
    ) -> str:
        """Post Slack markup, once; `escape` whatever part of it is not ours. ``text`` is the notification, too.

        Returns Slack's ``ts``, which names the message in its channel.
        """
        answer = self._call(
            lambda client: client.chat_postMessage(channel=self._channel, text=text, blocks=blocks), timeout_seconds
        )
        return str(answer.get("ts") or "")

    def check(self, *, timeout_seconds: float = FULL_TIMEOUT_SECONDS) -> None:
        """Return when Slack accepts the token; says nothing of the channel."""
        self.check_scopes(timeout_seconds=timeout_seconds)

    def check_scopes(self, *, timeout_seconds: float = FULL_TIMEOUT_SECONDS) -> set[str]:
        """The scopes that Slack says the token has (compare with ``SCOPES``); empty when it does not say."""
        answer = self._call(lambda client: client.auth_test(), timeout_seconds)
        said = {name.lower(): value for name, value in answer.headers.items()}.get("x-oauth-scopes") or ""
        return {scope.strip() for scope in str(said).split(",") if scope.strip()}

    def check_channel(self, *, timeout_seconds: float = FULL_TIMEOUT_SECONDS) -> str:
        """Post a marked message that people will see, and return its ``ts``: only for somebody who asked."""
        return self.post(MARKED_TEXT, timeout_seconds=timeout_seconds)

    @protected(SLACK)
    def _call(self, action: Callable[[WebClient], SlackResponse], timeout_seconds: float) -> SlackResponse:
        # A client of its own for each call: it holds the time limit, and no connection.
        client = WebClient(self._token, base_url=self._base_url, timeout=timeout_seconds, retry_handlers=[])  # type: ignore[arg-type]
        try:
            return action(client)
        except SlackApiError as error:
            raise _sort_answer(error) from None
        except (OSError, http.client.HTTPException, SlackClientError, UnicodeDecodeError) as error:
            raise _sort_failure(error, at_full_limit=timeout_seconds >= FULL_TIMEOUT_SECONDS) from None


def _sort_answer(error: SlackApiError) -> VoicedeskError:
    status = int(error.response.status_code)
    word = str(error.response.get("error") or "")
    if status == 429 or word in ("ratelimited", "rate_limited"):
        headers = {name.lower(): value for name, value in error.response.headers.items()}
        wish = headers.get("retry-after")
        return ProviderThrottled("Slack asks for less", retry_after=parse_retry_after(wish))
    # What is no word is slack_sdk's report of an answer that was not JSON: a gateway's page, usually.
    if status >= 500 or word in _TEMPORARY or not _WORD.fullmatch(word):
        return ProviderUnavailable(f"Slack answered with HTTP {status}")
    if word in _CREDENTIALS:
        return CredentialsRefused(
            f"Slack refused the bot's token ({word})",
            provider_code=word,
            advice=f"Renew SLACK_BOT_TOKEN; it needs the scopes {' and '.join(sorted(SCOPES))}.",
        )
    return ProviderRefused(f"Slack refused the request ({word})", provider_code=word, advice=_ADVICE.get(word))


def _sort_failure(error: Exception, *, at_full_limit: bool) -> TemporaryFailure:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, ConnectionRefusedError | socket.gaierror):
        return ProviderUnavailable("Slack cannot be reached", maybe_done=False)
    if isinstance(cause, TimeoutError):
        # urllib tells a connection that could not be made in time like an answer that did not come.
        if at_full_limit:
            return ProviderUnavailable("Slack did not answer in time")
        return DeadlineExceeded("Slack did not answer in the time that was left")
    return ProviderUnavailable("the connection to Slack broke off")
