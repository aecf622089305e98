"""Whether somebody would be told: Sentry, Slack, and the counting of errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.errors import CredentialsRefused, ProviderRefused, TemporaryFailure
from app.integrations.slack import SCOPES
from app.observability import errors
from app.observability.sentry_check import MARKED_NUMBER, captured_without_sentry, dsn_fault, send_marked
from app.services.readiness.outcomes import Outcome, failed, fallen_back, passed, warned

if TYPE_CHECKING:
    from app.services.platform import Platform

TIMEOUT_SECONDS = 3.0
COUNTED_KIND = "cli:readiness"


def sentry_configuration(platform: Platform) -> Outcome:
    """SENTRY_DSN is one, and reports will say which version they are of."""
    settings = platform.settings
    if not settings.sentry_dsn:
        return warned("SENTRY_DSN is not set; errors are in the log alone", "Set SENTRY_DSN to your project's DSN.")
    fault = dsn_fault(settings.sentry_dsn)
    if fault:
        return failed(f"SENTRY_DSN: {fault}", "Copy the DSN from the project's settings, Client Keys.")
    if not settings.release:
        return warned("SENTRY_DSN is set, RELEASE is not", "Set RELEASE to the version that is deployed.")
    return passed(f"a DSN, with release and environment {settings.environment.value}")


def slack_alerts(platform: Platform) -> Outcome:
    """The token is accepted, has both scopes, and a marked message arrives in the channel."""
    settings = platform.settings
    if not settings.slack_bot_token and not settings.slack_alert_channel:
        return warned("not configured; alerts are in the log alone", "Set SLACK_BOT_TOKEN and SLACK_ALERT_CHANNEL.")
    if platform.slack is None:
        missing = "SLACK_ALERT_CHANNEL" if settings.slack_bot_token else "SLACK_BOT_TOKEN"
        return failed(f"{missing} is not set, so no alert can be posted", f"Set {missing}.")
    try:
        missing_scopes = sorted(SCOPES - platform.slack.check_scopes(timeout_seconds=TIMEOUT_SECONDS))
        if missing_scopes:
            fix = f"Add {' and '.join(missing_scopes)} under OAuth & Permissions, then reinstall the app."
            return failed(f"the token lacks {' and '.join(missing_scopes)}", fix)
        platform.slack.check_channel(timeout_seconds=TIMEOUT_SECONDS)
    except CredentialsRefused as error:
        return failed(str(error), error.advice)
    except ProviderRefused as error:
        return failed(f"SLACK_ALERT_CHANNEL: {error}", error.advice or "Check SLACK_ALERT_CHANNEL.")
    except TemporaryFailure as error:
        return fallen_back(platform, f"{error}; alerts wait for it", "See status.slack.com and the way out to Slack.")
    return passed("token accepted, both scopes, a marked message is in the channel")


def error_counts(platform: Platform) -> Outcome:
    """A counted error is found again, in Redis when there is one."""
    counts = platform.error_counts
    before = counts.totals()["1m"].get(COUNTED_KIND, 0)
    errors.count(COUNTED_KIND)
    told = counts.flush()
    if counts.totals()["1m"].get(COUNTED_KIND, 0) <= before:
        return failed("a counted error was not found again", "See the log for what keeps Redis from counting.")
    if not platform.redis.configured:
        return passed("counted and read back, in this process's memory (no REDIS_URL)")
    if not told:
        return fallen_back(platform, "counted in memory: Redis cannot be told", "See whether Redis runs and answers.")
    return passed("counted in Redis and read back, with 1, 5 and 60 minutes")


def error_reporting(platform: Platform) -> Outcome:
    """A marked report arrives at Sentry; without Sentry an error is logged and counted, which is told apart."""
    settings = platform.settings
    if settings.sentry_dsn is None:
        report = captured_without_sentry(settings)
        if report is None:
            return failed("a marked error became no report", "See the version of sentry-sdk that is installed.")
        if MARKED_NUMBER in str(report):
            return failed("a report would carry what people said", "Do not set SENTRY_DSN before that is mended.")
        return passed("a marked error became a report without personal data; it stays here, errors go to the log")
    if dsn_fault(settings.sentry_dsn):
        return failed("SENTRY_DSN is not a DSN, so nothing can be sent", "Copy the DSN from the project's settings.")
    answer = send_marked(settings, timeout_seconds=TIMEOUT_SECONDS)
    if answer.accepted:
        return passed("Sentry accepted a marked report")
    return fallen_back(platform, answer.reason, "Check SENTRY_DSN's key and project, and the way out to its host.")
