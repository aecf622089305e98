"""One marked report to Sentry, and whether Sentry took it: the SDK itself never tells.

Owns a client of its own for that one report, scrubbed like every other. Only for somebody who asked:
people see what it sends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import sentry_sdk
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import HttpTransport, Transport
from sentry_sdk.utils import BadDsn, Dsn, event_from_exception

from app.config import Settings
from app.observability.sentry import scrub

MARK = "Voicedesk: a test report. Errors reach Sentry; nothing is wrong."
MARKED_NUMBER = "+15005550006"  # nobody's: Twilio keeps it for tests
_NOWHERE = "https://nobody@localhost/1"  # for a client whose transport sends nothing


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


def captured_without_sentry(settings: Settings) -> dict[str, Any] | None:
    """The report that a marked exception becomes, kept here instead of sent; None when none was made.

    The exception's text has a phone number in it, which must not be in the report.
    """
    kept: list[dict[str, Any]] = []

    class Keeping(Transport):
        """Sends nothing."""

        def capture_envelope(self, envelope: Envelope) -> None:
            """Keep the report of an envelope."""
            event = envelope.get_event()
            if event is not None:
                kept.append(cast(dict[str, Any], event))

    client = sentry_sdk.Client(
        dsn=_NOWHERE,
        transport=Keeping,
        environment=settings.environment.value,
        release=settings.release,
        before_send=cast(Any, scrub),
        default_integrations=False,
        auto_enabling_integrations=False,
        shutdown_timeout=0,
    )
    try:
        raise ValueError(MARKED_NUMBER)
    except ValueError as error:
        event, hint = event_from_exception(error, client_options=client.options)
        client.capture_event(event, hint)
    client.close(timeout=0)
    return kept[0] if kept else None
