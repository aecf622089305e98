"""One marked error and one marked alert through every channel, and whether each arrived.

Owns what counts as arrived: an error is counted when it is read back, at Sentry when Sentry said that it took
it, an alert in Slack when Slack named the message. People see what this sends, and it says what it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from app.errors import VoicedeskError
from app.observability import errors
from app.observability.sentry_check import dsn_fault, send_marked

if TYPE_CHECKING:
    from app.services.platform import Platform

TIMEOUT_SECONDS = 5.0
ARRIVED, NOT_CONFIGURED, FAILED = "arrived", "not configured", "failed"


class MarkedError(VoicedeskError):
    """A test of the monitoring: nothing is wrong."""

    code = "marked"


def verify(platform: Platform) -> list[dict[str, Any]]:
    """Send, and look. A row a channel: ``channel``, ``result`` (arrived, not configured, failed), ``told``, ``fix``.

    The marked error goes the way of every error (logged, counted, to Sentry if it is set up in this process).
    """
    return [_error_counts(platform), _sentry(platform), _slack(platform)]


def all_arrived(found: list[dict[str, Any]]) -> bool:
    """Whether no channel failed; one that is not configured has not."""
    return all(row["result"] != FAILED for row in found)


def _error_counts(platform: Platform) -> dict[str, Any]:
    counts = platform.error_counts
    marked = MarkedError()
    kind = errors.kind_of(marked, "cli")
    before = counts.totals()["1m"].get(kind, 0)
    errors.report(marked, where="cli", event="monitoring.verify")
    told = counts.flush()
    after = counts.totals()["1m"].get(kind, 0)
    if after <= before:
        return _row("error counts", FAILED, "the marked error was not counted", "See the log line monitoring.verify.")
    if platform.redis.configured and not told:
        return _row("error counts", FAILED, "counted here, but Redis was not told", "See whether Redis answers.")
    where = "Redis" if platform.redis.configured else "this process's memory"
    return _row("error counts", ARRIVED, f"{kind} read back from {where}")


def _sentry(platform: Platform) -> dict[str, Any]:
    settings = platform.settings
    if not settings.sentry_dsn:
        return _row(
            "Sentry", NOT_CONFIGURED, "SENTRY_DSN is not set", "Set SENTRY_DSN, if errors are to be seen there."
        )
    fault = dsn_fault(settings.sentry_dsn)
    if fault:
        return _row("Sentry", FAILED, f"SENTRY_DSN: {fault}", "Copy the DSN from the project's settings, Client Keys.")
    answer = send_marked(settings, timeout_seconds=TIMEOUT_SECONDS)
    if not answer.accepted:
        return _row("Sentry", FAILED, answer.reason, "Check SENTRY_DSN's key and project, and the way out to its host.")
    return _row("Sentry", ARRIVED, f"event {answer.event_id}")


def _slack(platform: Platform) -> dict[str, Any]:
    settings = platform.settings
    if not settings.slack_bot_token and not settings.slack_alert_channel:
        fix = "Set SLACK_BOT_TOKEN and SLACK_ALERT_CHANNEL, if alerts are to be seen there."
        return _row("Slack", NOT_CONFIGURED, "alerts go to the log", fix)
    slack = platform.slack
    if slack is None:
        return _row("Slack", FAILED, "the token or the channel is missing", "Set both, or neither.")
    return _tried("Slack", lambda: f"message {slack.check_channel(timeout_seconds=TIMEOUT_SECONDS)}")


def _tried(channel: str, send: Callable[[], str]) -> dict[str, Any]:
    try:
        return _row(channel, ARRIVED, send())
    except VoicedeskError as error:
        return _row(channel, FAILED, str(error), error.advice or "See its status page and the way out to it.")


def _row(channel: str, result: str, told: str, fix: str = "") -> dict[str, Any]:
    return {"channel": channel, "result": result, "told": told, "fix": fix}
