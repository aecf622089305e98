"""Readiness: everything the platform stands on, really exercised, before a deploy. One command says yes or no.

Owns the list and its order, that checks run side by side, each in a bounded time, and the score. What each
does is beside its like: ``monitoring``, ``house``, ``data``, ``work``, ``providers``. A check leaves nothing behind
but a counted error, a message in Slack and a report in Sentry that say what they are.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from app.config import Fault
from app.errors import VoicedeskError
from app.observability.logging import describe, get_logger
from app.services.readiness import data, house, monitoring, providers, work
from app.services.readiness.outcomes import Check, Outcome, failed

if TYPE_CHECKING:
    from app.services.platform import Platform

LIMIT_SECONDS = 7.0  # and the start of the command itself: together under ten
SETTINGS_CHECK = "Environment Variables"
MONITORING, HOUSE, DATA, WORK, PROVIDERS = "Monitoring", "House", "Database", "Work", "Providers"

CHECKS = (
    Check("Sentry Configuration", MONITORING, monitoring.sentry_configuration),
    Check("Slack Alert System", MONITORING, monitoring.slack_alerts),
    Check("Error Count Tracking", MONITORING, monitoring.error_counts),
    Check("Error Reporting", MONITORING, monitoring.error_reporting),
    Check(SETTINGS_CHECK, HOUSE, house.environment_variables),
    Check("Database Connection", DATA, data.connection),
    Check("Server Configuration", HOUSE, house.server_configuration),
    Check("Webhook Cleanup Job", DATA, data.cleanup),
    Check("Idempotency Tables", DATA, data.idempotency),
    Check("Circuit Breaker Module", PROVIDERS, providers.breaker),
    Check("Twilio Integration", PROVIDERS, providers.twilio),
    Check("Calendar Integration", PROVIDERS, providers.calendar),
    Check("Webhook Queue System", WORK, work.queue),
    Check("Job Schedulers", WORK, work.schedulers),
    Check("Row-Level Security", DATA, data.row_level_security),
    Check("Vapi Integration", PROVIDERS, providers.vapi),
    Check("Migration Head", DATA, data.migration_head),
    Check("Encryption Keys", HOUSE, house.encryption_keys),
    Check("Webhook Verification", HOUSE, house.webhook_verification),
    Check("Clock", HOUSE, house.clock),
    Check("Disk and Spool", HOUSE, house.disk),
)

log = get_logger(__name__)


def run(
    platform: Platform, checks: tuple[Check, ...] = CHECKS, *, limit_seconds: float = LIMIT_SECONDS
) -> dict[str, Any]:
    """Run all checks side by side, each within its limit; one that does not end is a FAIL.

    Returns ``{"score", "checks": [{"name", "group", "status", "duration_ms", "reason", "fix"}]}``, the
    score being 100 x (PASS + half of WARN) / all, rounded to one decimal.
    """
    runs = [_Run(platform, check) for check in checks]
    ends = time.monotonic() + limit_seconds
    for one in runs:
        one.start()
    return _report([one.result(max(0.0, ends - time.monotonic()), limit_seconds) for one in runs])


def refuse(faults: Sequence[Fault]) -> dict[str, Any]:
    """The report where wrong settings let nothing start: one check says which, and no other can be asked."""
    wrong = ", ".join(fault.variable for fault in faults) or "the settings"
    unasked = failed("not asked: nothing starts with these settings", f"Mend {SETTINGS_CHECK} first.")
    named = failed(f"wrong: {wrong}", "Run `flask --app wsgi settings check`.")
    return _report([_line(check, named if check.name == SETTINGS_CHECK else unasked, 0.0) for check in CHECKS])


def _report(found: list[dict[str, Any]]) -> dict[str, Any]:
    points = {"PASS": 1.0, "WARN": 0.5, "FAIL": 0.0}
    score = 100 * sum(points[row["status"]] for row in found) / len(found)
    return {"score": round(score, 1), "checks": found}


def _line(check: Check, outcome: Outcome, seconds: float) -> dict[str, Any]:
    return {
        "name": check.name,
        "group": check.group,
        "status": outcome.status,
        "duration_ms": round(seconds * 1000),
        "reason": outcome.reason,
        "fix": outcome.fix,
    }


def is_ready(report: dict[str, Any]) -> bool:
    """Whether nothing failed."""
    return all(row["status"] != "FAIL" for row in report["checks"])


class _Run(threading.Thread):
    """One check under way. A daemon: what hangs must not keep the command from ending."""

    def __init__(self, platform: Platform, check: Check) -> None:
        super().__init__(name=f"readiness-{check.name}", daemon=True)
        self._platform = platform
        self._check = check
        self._outcome: Outcome | None = None
        self._seconds = 0.0

    def run(self) -> None:
        began = time.monotonic()
        outcome = self._try()
        self._seconds = time.monotonic() - began
        self._outcome = outcome

    def result(self, wait_seconds: float, limit_seconds: float) -> dict[str, Any]:
        """The check's line, after waiting at most so long for it."""
        self.join(wait_seconds)
        outcome = self._outcome
        if outcome is None:
            self._seconds = limit_seconds
            outcome = failed(f"it did not end within {limit_seconds:g} s", "See whether what it speaks of hangs.")
        return _line(self._check, outcome, self._seconds)

    def _try(self) -> Outcome:
        try:
            return self._check.run(self._platform)
        except VoicedeskError as error:
            return failed(str(error), error.advice or "See the reason; the operations guide tells more.")
        except Exception as error:  # noqa: BLE001 - whatever a check meets is its result, not the command's end
            told = describe(error)
            log.error("readiness.check_failed", check=self._check.name, **told)
            return failed(f"the check itself failed ({type(error).__name__})", "See the log line of this check.")
