"""One marked report to Sentry, and whether Sentry took it: the SDK itself never tells.

Owns a client of its own for that one report, scrubbed like every other. Only for somebody who asked:
people see what it sends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import sentry_sdk
from sentry_sdk.transport import HttpTransport
from sentry_sdk.utils import BadDsn, Dsn

from app.config import Settings
from app.observability.sentry import scrub

MARK = "Voicedesk: a test report. Errors reach Sentry; nothing is wrong."


@dataclass(frozen=True, slots=True)
class SentryAnswer:
    """What became of a marked report; ``event_id`` finds it in Sentry. ``reason`` is empty when it was accepted."""

    event_id: str | None
    accepted: bool
    reason: str


def dsn_fault(dsn: str) -> str | None:
    """Why this cannot be a DSN; None when it can. Never repeats it."""
    try:
        Dsn(dsn)
    except BadDsn:
        return "it is not a DSN (https://<key>@<host>/<project>)"
    return None


def send_marked(settings: Settings, *, timeout_seconds: float) -> SentryAnswer:
    """Send one marked report to SENTRY_DSN (which must be a DSN) and wait for Sentry's answer, at most that long."""
    told: list[str] = []

    class Noting(HttpTransport):
        """The SDK's own transport, which also notes how it went."""

        def _handle_response(self, response: Any, envelope: Any) -> None:
            status = int(response.status)
            told.append("" if status < 300 else f"Sentry answered with HTTP {status}")
            super()._handle_response(response, envelope)

        def on_dropped_event(self, reason: str) -> None:
            """Not sent, or refused."""
            told.append("Sentry cannot be reached" if reason == "network" else f"Sentry did not take it ({reason})")

    client = sentry_sdk.Client(
        dsn=settings.sentry_dsn,
        transport=Noting,
        environment=settings.environment.value,
        release=settings.release,
        before_send=cast(Any, scrub),
        default_integrations=False,
        auto_enabling_integrations=False,
        shutdown_timeout=0,
    )
    event_id = client.capture_event({"message": MARK, "level": "info", "tags": {"kind": "marked"}})
    client.flush(timeout=timeout_seconds)
    client.close(timeout=0)
    if not told:
        return SentryAnswer(event_id, accepted=False, reason="Sentry did not answer in time")
    return SentryAnswer(event_id, accepted=told[0] == "", reason=told[0])
