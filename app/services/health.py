"""How each part is: the process, the database, Redis, the queue, Vapi.

Owns what counts as healthy. Every report has ``status`` (healthy, degraded, unhealthy or
not_configured) and ``timestamp``; none takes longer than a short, bounded look.
"""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from app.errors import DatabaseUnavailable, VoicedeskError
from app.integrations.breaker import circuits
from app.integrations.vapi import VapiClient
from app.models.lanes import next_due

if TYPE_CHECKING:
    from app.services.platform import Platform

TOO_OLD_SECONDS = 60.0
PROBE_SECONDS = 30.0
FIRST_PROBE_WAIT_SECONDS = 1.0


def life() -> dict[str, Any]:
    """The process lives and can answer."""
    return _report("healthy")


def database(platform: Platform) -> dict[str, Any]:
    """Whether the database answers, and how fast."""
    began = time.monotonic()
    try:
        platform.database.ping()
    except DatabaseUnavailable as error:
        return _report("unhealthy", reason=str(error))
    return _report("healthy", latency_ms=round((time.monotonic() - began) * 1000, 1))


def redis(platform: Platform) -> dict[str, Any]:
    """Whether Redis answers; without REDIS_URL that is a choice, not a fault."""
    if not platform.redis.configured:
        return _report("not_configured")
    return _report("healthy") if platform.redis_answers() else _report("unhealthy", reason="Redis does not answer")


def queue(platform: Platform) -> dict[str, Any]:
    """Whether work moves: nothing that is due has been due for long."""
    try:
        with platform.database.transaction(system=True, statement_timeout_ms=2000) as session:
            _, waited = next_due(session)
    except DatabaseUnavailable as error:
        return _report("unhealthy", reason=str(error))
    if waited > TOO_OLD_SECONDS:
        return _report("unhealthy", reason="work is due and nobody takes it", oldest_waiting_seconds=round(waited, 1))
    return _report("healthy", oldest_waiting_seconds=round(waited, 1))


def readiness(platform: Platform) -> dict[str, Any]:
    """Whether this process can take a webhook. Redis, workers and providers only degrade it."""
    base = database(platform)
    if base["status"] != "healthy":
        return base
    reasons = []
    if not platform.redis.configured:
        reasons.append("Redis is not configured; web processes deliver by themselves")
    elif not platform.redis_answers():
        reasons.append("Redis does not answer; web processes deliver by themselves")
    if queue(platform)["status"] != "healthy":
        reasons.append("work is due and nobody takes it")
    reasons += [f"circuit {state.name} is {state.state}" for state in circuits.states() if state.state != "closed"]
    return _report("degraded", reasons=reasons) if reasons else _report("healthy")


def vapi(platform: Platform) -> dict[str, Any]:
    """The last probe's result. An old one is renewed in the background, for the next who asks."""
    if platform.vapi is None:
        return _report("not_configured")
    return _probe.current(platform.vapi)


class _VapiProbe:
    """The last result in this process, and at most one probe at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._result: dict[str, Any] | None = None
        self._probed = 0.0
        self._thread: threading.Thread | None = None

    def current(self, client: VapiClient) -> dict[str, Any]:
        with self._lock:
            stale = time.monotonic() - self._probed > PROBE_SECONDS
            if stale and (self._thread is None or not self._thread.is_alive()):
                self._thread = threading.Thread(target=self._probe, args=(client,), name="vapi-probe", daemon=True)
                self._thread.start()
            thread = self._thread
        if self._result is None and thread is not None:
            thread.join(timeout=FIRST_PROBE_WAIT_SECONDS)
        return self._result or _report("unhealthy", reason="Vapi has not answered a probe yet")

    def _probe(self, client: VapiClient) -> None:
        began = time.monotonic()
        try:
            client.probe()
            result = _report("healthy", latency_ms=round((time.monotonic() - began) * 1000, 1))
        except VoicedeskError as error:
            result = _report("unhealthy", reason=str(error), code=error.code)
        self._result, self._probed = result, time.monotonic()


_probe = _VapiProbe()


def _report(status: str, **facts: Any) -> dict[str, Any]:
    return {"status": status, "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"), **facts}
