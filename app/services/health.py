"""How each part is: the process, the database, Redis, the queue, Vapi.

Owns what counts as healthy. Every report has ``status`` (healthy, degraded, unhealthy or
not_configured) and ``timestamp``; none takes longer than a short, bounded look, and what is asked many times
a second is looked at once (``lately.py``). No report names an organization or holds a secret: anybody may ask.
"""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import DBAPIError

from app.errors import DatabaseUnavailable, VoicedeskError
from app.integrations.breaker import circuits
from app.integrations.vapi import VapiClient
from app.models import ledger
from app.models.deliveries import list_dead
from app.models.lanes import oldest_within_quota
from app.services import canary
from app.services.alerts import open_alerts

if TYPE_CHECKING:
    from app.services.platform import Platform

FRESH_SECONDS = 1.0
BOOKS_SECONDS = 5.0  # adding them up is the dearest look
LOOK_MS = 2000
DEAD_WITHIN = timedelta(hours=1)
PROBE_SECONDS = 30.0
FIRST_PROBE_WAIT_SECONDS = 1.0


def life() -> dict[str, Any]:
    """The process lives and can answer."""
    return _report("healthy")


def database(platform: Platform) -> dict[str, Any]:
    """Whether the database answers, and how fast; a second old at most."""
    return platform.lately.ask("database", FRESH_SECONDS, lambda: _database(platform))


def _database(platform: Platform) -> dict[str, Any]:
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
    """Whether work moves; a second old at most (the books five).

    ``unhealthy`` when it does not: an event has been due beyond OLDEST_WAITING_LIMIT_SECONDS (those of who is over
    the quota do not count: they are meant to wait), canaries do not come through, or nobody can look.
    ``degraded`` when it moves and a person should look all the same: workers do nothing and web processes
    deliver in their place, events wait in this host's spool, or the books do not balance. Broken books are no 503: work
    that moves is not helped by whatever a balancer or an orchestrator does to a process that answers 503; an alert
    tells of them.
    """
    return platform.lately.ask("queue", FRESH_SECONDS, lambda: _queue(platform))


def _queue(platform: Platform) -> dict[str, Any]:
    try:
        oldest = _oldest_waiting(platform)
        seen = canary.look(platform)
        facts: dict[str, Any] = {
            "oldest_waiting_seconds": oldest,
            "dead_last_hour": _dead_lately(platform),
            "canary": {"age_seconds": seen.age_seconds, "by": seen.by, "missed": seen.missed},
            "workers_idle": seen.workers_idle,
            "ledger": platform.lately.ask("ledger", BOOKS_SECONDS, lambda: _books(platform)),
            **_spool(platform),
            "circuits": {state.name: state.state for state in circuits.states()},
            "open_alerts": len(open_alerts(platform)),
        }
    except DatabaseUnavailable as error:
        return _report("unhealthy", reason=str(error), **_spool(platform))
    except DBAPIError:  # a look was too slow
        return _report("unhealthy", reason="the queue could not be looked at in time")
    if oldest > platform.settings.oldest_waiting_limit_seconds:
        return _report("unhealthy", reason="work is due and nobody takes it", **facts)
    if seen.missed:
        return _report("unhealthy", reason="canaries are planted and none comes through", **facts)
    reasons = ["workers do nothing; web processes deliver in their place"] if seen.workers_idle else []
    if not facts["ledger"].get("balanced", True):
        reasons.append("the books do not balance")
    if facts["spool"].get("events"):
        reasons.append("events wait in the spool")
    return _report("degraded", reasons=reasons, **facts) if reasons else _report("healthy", **facts)


def _oldest_waiting(platform: Platform) -> float:
    with platform.database.transaction(system=True, statement_timeout_ms=LOOK_MS) as session:
        return round(oldest_within_quota(session), 1)


def _dead_lately(platform: Platform) -> int:
    with platform.database.transaction(system=True, statement_timeout_ms=LOOK_MS) as session:
        return sum(trouble.count for trouble in list_dead(session, within=DEAD_WITHIN, except_codes=()))


def _books(platform: Platform) -> dict[str, Any]:
    """Both sides of the books; empty when they are so large that adding them up takes too long."""
    try:
        with platform.database.transaction(system=True, statement_timeout_ms=LOOK_MS) as session:
            found = ledger.balance(session)
    except DBAPIError:
        return {}
    sides = ("accepted", "processed", "dead", "skipped", "erased", "waiting")
    return {**{side: getattr(found, side) for side in sides}, "balanced": found.difference == 0}


def readiness(platform: Platform) -> dict[str, Any]:
    """Whether this process can take a webhook; a second old at most. Redis, workers and providers only degrade it."""
    return platform.lately.ask("readiness", FRESH_SECONDS, lambda: _readiness(platform))


def _readiness(platform: Platform) -> dict[str, Any]:
    base = database(platform)
    fault = platform.spool.fault()
    if base["status"] != "healthy":
        if fault is not None:
            return {**base, "reason": f"{base['reason']}, and the spool takes nothing: {fault}"}
        return _report("degraded", reasons=[f"{base['reason']}; webhooks go to the spool"], **_spool(platform))
    reasons = [f"the spool takes nothing: {fault}"] if fault is not None and platform.settings.spool_max_bytes else []
    if not platform.spool.folder.is_empty():
        reasons.append("events wait in the spool")
    if not platform.redis.configured:
        reasons.append("Redis is not configured; web processes deliver by themselves")
    elif not platform.redis_answers():
        reasons.append("Redis does not answer; web processes deliver by themselves")
    if not _moves(platform):
        reasons.append("work is due and nobody takes it")
    reasons += [f"circuit {state.name} is {state.state}" for state in circuits.states() if state.state != "closed"]
    return _report("degraded", reasons=reasons) if reasons else _report("healthy")


def _spool(platform: Platform) -> dict[str, Any]:
    """What waits on this host's disk, beside the books: it is accepted when the database has it."""
    try:
        found = platform.spool.contents()
    except OSError as error:
        return {"spool": {"reason": error.strerror or type(error).__name__}}
    waited = round(max(0.0, time.time() - found.oldest), 1) if found.oldest is not None else 0.0
    return {"spool": {"events": found.lines, "bytes": found.bytes, "set_aside": found.aside, "oldest_seconds": waited}}


def _moves(platform: Platform) -> bool:
    try:
        return _oldest_waiting(platform) <= platform.settings.oldest_waiting_limit_seconds
    except (DatabaseUnavailable, DBAPIError):
        return False


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
