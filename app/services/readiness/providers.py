"""The parties outside and what protects us from them: the breaker, Twilio, Google Calendar, Vapi."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from app.errors import (
    CircuitOpen,
    ConfigurationError,
    CredentialsRefused,
    ProviderUnavailable,
    TemporaryFailure,
    VoicedeskError,
)
from app.integrations.breaker import Circuits, protected
from app.models.integrations import list_enabled
from app.services.readiness.outcomes import Outcome, failed, fallen_back, passed, warned

if TYPE_CHECKING:
    from app.services.platform import Platform

TIMEOUT_SECONDS = 3.0
MOST_ASKED = 5  # organizations, side by side
OPEN_SECONDS = (0.3, 2.0)  # longer, if this machine was too busy to tell with the shorter


def breaker(platform: Platform) -> Outcome:
    """A circuit of its own opens, refuses, is seen open by another process, lets a probe through and closes."""
    for open_seconds in OPEN_SECONDS:
        name = f"readiness-{uuid4().hex[:8]}"  # short: logs would take a longer one for a secret
        here, other = Circuits((name,)), Circuits((name,))
        try:
            for registry in (here, other):
                registry.connect(platform.redis, open_seconds, platform.settings.circuit_failures)
            outcome = _open_and_close(platform, name, here, other, open_seconds)
        finally:
            here.reset()
            here.close()
            other.close()
        if outcome is not None:
            return outcome
    return warned("this machine is too busy to tell", "Look at its load, and at what Redis answers.")


def _open_and_close(
    platform: Platform, name: str, here: Circuits, other: Circuits, open_seconds: float
) -> Outcome | None:
    """None when it took so long that the circuit was not open any more when it was looked at."""
    fails = True

    @protected(name, here)
    def call() -> None:
        if fails:
            raise ProviderUnavailable

    for _ in range(platform.settings.circuit_failures):
        began = time.monotonic()
        with suppress(ProviderUnavailable):
            call()
    other.refresh()
    shared = other.get(name).state == "open"
    refused = False
    try:
        call()
    except CircuitOpen:
        refused = True
    except ProviderUnavailable:
        pass
    if not (refused and shared) and time.monotonic() - began > open_seconds:
        return None
    if not refused:
        return failed("a circuit did not open", "See CIRCUIT_FAILURES and CIRCUIT_OPEN_SECONDS.")
    fails = False
    time.sleep(open_seconds + 0.05)
    try:
        call()
    except CircuitOpen:
        return failed("an open circuit let no probe through", "See the clock of Redis, and its memory.")
    if here.get(name).state != "closed":
        return failed("a circuit did not close after a good probe", "See the log.")
    done = f"opened after {platform.settings.circuit_failures} failures, refused, probed, closed"
    return _told(platform, done, shared=shared)


def _told(platform: Platform, done: str, *, shared: bool) -> Outcome:
    if not platform.redis.configured:
        return passed(f"{done}; each process by itself (no REDIS_URL)")
    if not shared:
        return fallen_back(
            platform,
            f"{done}, unseen by other processes: Redis keeps no circuits",
            "See Redis, and its rights to EVAL.",
        )
    return passed(f"{done}; shared by Redis")


def twilio(platform: Platform) -> Outcome:
    """Twilio accepts the credentials of the newest few integrations."""
    return _ask_each(
        platform,
        "twilio",
        lambda credentials: platform.twilio.check_account(credentials, timeout_seconds=TIMEOUT_SECONDS),
        "texts wait and are sent later",
    )


def calendar(platform: Platform) -> Outcome:
    """Google shows the calendars of the newest few integrations."""
    now = datetime.now(UTC)

    def look(credentials: Any) -> None:
        platform.google.busy(credentials, start=now, end=now + timedelta(hours=1), timeout_seconds=TIMEOUT_SECONDS)

    return _ask_each(platform, "google-calendar", look, "bookings are noted and finished later")


def vapi(platform: Platform) -> Outcome:
    """Vapi answers, and knows the private key."""
    if platform.vapi is None:
        return warned("VAPI_PRIVATE_KEY is not set; calls come in all the same", "Set it to look calls up at Vapi.")
    try:
        platform.vapi.probe(timeout_seconds=TIMEOUT_SECONDS)
    except CredentialsRefused:
        return failed("Vapi refused the private key", "Set VAPI_PRIVATE_KEY to the organization's private key.")
    except TemporaryFailure as error:
        return fallen_back(platform, f"{error}; webhooks need no call to Vapi", "See status.vapi.ai and the way out.")
    return passed("answers and knows the key")


def _ask_each(platform: Platform, provider: str, ask: Callable[[Any], None], meanwhile: str) -> Outcome:
    """Open and try the credentials of a bounded number of organizations, side by side; the worst is the result."""
    with platform.database.transaction(system=True, statement_timeout_ms=3000) as session:
        rows = list_enabled(session, provider, limit=MOST_ASKED)
    if not rows:
        return warned("no organization is connected", f"Connect one with `integration add ORG {provider}`.")

    def one(row: Any) -> tuple[Any, VoicedeskError | None]:
        try:
            ask(platform.vault.open(row.provider, row.credentials))
        except VoicedeskError as error:
            return row, error
        return row, None

    with ThreadPoolExecutor(max_workers=MOST_ASKED) as pool:
        faults = [(row, error) for row, error in pool.map(one, rows) if error is not None]
    for row, error in faults:
        if isinstance(error, ConfigurationError):
            return failed(f"the credentials of integration {row.id} cannot be opened", "See Encryption Keys.")
        if isinstance(error, CredentialsRefused) or not isinstance(error, TemporaryFailure):
            fix = f"{error.advice} `integration set {row.id} --set key=value`".strip()
            return failed(f"{error} (organization {row.org_id})", fix)
    if faults:
        return fallen_back(platform, f"{faults[0][1]}; {meanwhile}", "See the provider's status page and `circuits`.")
    return passed(f"asked for {len(rows)} of the connected organizations, each accepted")
