"""What may be wrong: every cause of an alert, and how it is looked for.

Owns the looks. LOCAL ones every process takes, because what is lost may be lost to it alone; SHARED ones
the elected process takes for all. A look returns what is wrong now and decides nothing about telling. It
may raise DatabaseUnavailable; nothing here waits for anybody outside.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from app.integrations.breaker import circuits
from app.models.appointments import list_conflicts
from app.models.calendars import list_lapsing
from app.models.deliveries import Trouble, list_dead, list_refused_credentials, list_set_aside
from app.models.forward_targets import list_gone
from app.models.lanes import oldest_within_quota
from app.models.messages import count_unknown
from app.models.reconciliations import list_missing
from app.models.routing import count_unowned
from app.services import canary, ledger, routing, usage, webhook_quotas

if TYPE_CHECKING:
    from app.services.platform import Platform

DEAD_WITHIN = timedelta(hours=1)
REFUSED_WITHIN = timedelta(minutes=15)
MISSING_WITHIN = timedelta(hours=1)
UNKNOWN_FOR = timedelta(minutes=10)
LAPSING_WITHIN = timedelta(hours=24)
EXPECTED_CODES = ("opted_out",)  # a customer's wish: dead, and nobody's trouble
LOOK_TIMEOUT_MS = 5_000
MOST_KINDS_TOLD = 3
MOST_IDS_TOLD = 5

# One look at these may fall into the moment after an outage or a deploy: only two in a row count.
TWICE = frozenset({"oldest_waiting", "ledger_broken", "canary_missed", "workers_idle"})
# Counted together in Redis: while it is away nobody sees all of it, so what is open is not known to be over.
IN_REDIS = frozenset({"error_rate", "api_quota_near", "api_quota_reached", "workers_idle"})
_PROVIDER_OF_WORK = {"message": "twilio", "appointment": "google-calendar", "calendar": "google-calendar"}


@dataclass(frozen=True, slots=True)
class Cause:
    """Something that is wrong. ``facts`` are ids, counts and codes, as JSON; ``org_id`` in them names whose it is.

    ``is_doubtful``: it may pass by itself just now, so it begins no alert; but one that is open is not over.
    """

    kind: str
    subject: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    is_doubtful: bool = False

    @property
    def key(self) -> str:
        """What makes it the same cause at the next look, and in another process."""
        return f"{self.kind}:{self.subject}" if self.subject else self.kind


@dataclass(frozen=True, slots=True)
class Look:
    """Where to look, and the kinds of which it then knows all that are wrong."""

    kinds: frozenset[str]
    find: Callable[[Platform], Iterable[Cause]]


class Steadiness:
    """Since when something has not been lost, as far as this process knows."""

    def __init__(self) -> None:
        self._since: float | None = None

    def saw(self, *, there: bool) -> bool:
        """Remember what was found; returns it."""
        self._since = (time.monotonic() if self._since is None else self._since) if there else None
        return there

    def lasts(self, seconds: float = 0.0) -> bool:
        """Whether it has been there for so long."""
        return self._since is not None and time.monotonic() - self._since >= seconds


def open_circuits(_: Platform) -> Iterable[Cause]:
    """Every circuit that is not closed, as this process sees it."""
    for state in circuits.states():
        if state.state != "closed":
            yield Cause("circuit_open", state.name, {"circuit": state.name})


def spool(platform: Platform) -> Iterable[Cause]:
    """What waits on this host's disk, as any process of the host sees it."""
    try:
        found = platform.spool.contents()
    except OSError as error:
        yield Cause("spool_failing", _host(), {"host": _host(), "reason": error.strerror or type(error).__name__})
        return
    facts = {"host": _host(), "events": found.lines, "bytes": found.bytes, "set_aside": found.aside}
    if found.lines or found.aside:
        yield Cause("spool_not_empty", _host(), facts)
    fault = platform.spool.fault() if platform.settings.spool_max_bytes else None
    if fault is not None or platform.spool.is_nearly_full(found):
        yield Cause("spool_failing", _host(), {**facts, "reason": fault or "it is nearly as large as may be"})


def _host() -> str:
    return socket.gethostname()


def _errors(platform: Platform) -> Iterable[Cause]:
    total, limit = platform.error_counts.total(5), platform.settings.error_rate_limit
    if total > limit:
        kinds = sorted(platform.error_counts.totals()["5m"].items(), key=lambda pair: -pair[1])[:MOST_KINDS_TOLD]
        yield Cause("error_rate", facts={"errors": total, "limit": limit, "kinds": [f"{k} ({n})" for k, n in kinds]})


def _oldest_waiting(platform: Platform) -> Iterable[Cause]:
    with platform.database.transaction(system=True, statement_timeout_ms=LOOK_TIMEOUT_MS) as session:
        waited = oldest_within_quota(session)
    limit = platform.settings.oldest_waiting_limit_seconds
    if waited > limit:
        yield Cause("oldest_waiting", facts={"waiting_seconds": round(waited), "limit_seconds": limit})


def _dead_letters(platform: Platform) -> Iterable[Cause]:
    with platform.database.transaction(system=True, statement_timeout_ms=LOOK_TIMEOUT_MS) as session:
        found = list_dead(session, within=DEAD_WITHIN, except_codes=EXPECTED_CODES)
    for trouble in found:
        subject = f"{trouble.provider}:{trouble.type}:{trouble.error_code}"
        yield Cause("dead_letters", subject, {**_facts(trouble), "error_code": trouble.error_code or "no code"})


def _set_aside(platform: Platform) -> Iterable[Cause]:
    with platform.database.transaction(system=True, statement_timeout_ms=LOOK_TIMEOUT_MS) as session:
        found = list_set_aside(session)
    for trouble in found:
        yield Cause("delivery_set_aside", f"{trouble.provider}:{trouble.type}", _facts(trouble))


def _facts(trouble: Trouble) -> dict[str, Any]:
    return {
        "provider": trouble.provider,
        "type": trouble.type,
        "count": trouble.count,
        "organizations": trouble.organizations,
        "delivery_ids": trouble.ids,
    }


def _books(platform: Platform) -> Iterable[Cause]:
    found = ledger.check(platform)
    if found.difference:
        names = ("accepted", "processed", "dead", "skipped", "erased", "waiting")
        sides = {name: getattr(found, name) for name in names}
        yield Cause("ledger_broken", facts={"difference": found.difference, **sides})


def _refused_credentials(platform: Platform) -> Iterable[Cause]:
    with platform.database.transaction(system=True, statement_timeout_ms=LOOK_TIMEOUT_MS) as session:
        found = list_refused_credentials(session, within=REFUSED_WITHIN)
    times: dict[tuple[str, str], int] = {}
    for org_id, provider, work, count in found:
        key = (str(org_id), _PROVIDER_OF_WORK.get(work.partition(".")[0], provider))
        times[key] = times.get(key, 0) + count
    for (org, provider), count in times.items():
        facts = {"org_id": org, "provider": provider, "deliveries": count}
        yield Cause("credentials_refused", f"{org}:{provider}", facts)


def _lapsing_channels(platform: Platform) -> Iterable[Cause]:
    with platform.database.transaction(system=True, statement_timeout_ms=LOOK_TIMEOUT_MS) as session:
        found = list_lapsing(session, within=LAPSING_WITHIN)
    for channel in found:
        assert channel.expires_at is not None
        facts = {
            "org_id": str(channel.org_id),
            "integration_id": str(channel.integration_id),
            "expires_at": channel.expires_at.isoformat(timespec="seconds"),
        }
        yield Cause("calendar_channel_lapsing", f"{channel.integration_id}:{channel.resource_id}", facts)


def _calendar_conflicts(platform: Platform) -> Iterable[Cause]:
    with platform.database.transaction(system=True, statement_timeout_ms=LOOK_TIMEOUT_MS) as session:
        found = list_conflicts(session)
    of: dict[str, list[str]] = {}
    for org_id, appointment_id in found:
        of.setdefault(str(org_id), []).append(str(appointment_id))
    for org, ids in of.items():
        yield Cause(
            "calendar_conflict", org, {"org_id": org, "count": len(ids), "appointment_ids": ids[:MOST_IDS_TOLD]}
        )


def _unknown_messages(platform: Platform) -> Iterable[Cause]:
    with platform.database.transaction(system=True, statement_timeout_ms=LOOK_TIMEOUT_MS) as session:
        found = count_unknown(session, older_than=UNKNOWN_FOR)
    for org_id, count, ids in found:
        facts = {"org_id": str(org_id), "count": count, "message_ids": [str(one) for one in ids]}
        yield Cause("message_unknown", str(org_id), facts)


def _unowned(platform: Platform) -> Iterable[Cause]:
    routing.adopt_late(platform)
    with platform.database.transaction(system=True, statement_timeout_ms=LOOK_TIMEOUT_MS) as session:
        found = count_unowned(session)
    for provider, count, since, ids in found:
        facts = {"provider": provider, "count": count, "oldest": since.isoformat(timespec="seconds")}
        yield Cause("unowned_event", provider, {**facts, "delivery_ids": ids})


def _forwards_gone(platform: Platform) -> Iterable[Cause]:
    with platform.database.transaction(system=True, statement_timeout_ms=LOOK_TIMEOUT_MS) as session:
        found = list_gone(session)
    for org_id, since in found:
        facts = {"org_id": str(org_id), "since": since.isoformat(timespec="seconds")}
        yield Cause("forward_switched_off", str(org_id), facts)


def _reconciled(platform: Platform) -> Iterable[Cause]:
    with platform.database.transaction(system=True, statement_timeout_ms=LOOK_TIMEOUT_MS) as session:
        found = list_missing(session, within=MISSING_WITHIN)
    for integration_id, org_id, provider, missing in found:
        whose = {"org_id": str(org_id)} if org_id else {}
        facts = {"provider": provider, "count": missing, "integration_id": str(integration_id), **whose}
        yield Cause("reconcile_missing", str(integration_id), facts)


def _webhook_quotas(platform: Platform) -> Iterable[Cause]:
    for used in webhook_quotas.measure(platform):
        yield from _usage("webhook", used.org_id, used.accepted, used.quota)


def _api_quotas(platform: Platform) -> Iterable[Cause]:
    for used in platform.quotas.near_limit():
        yield from _usage("api", used.org_id, used.accepted, used.quota)


def _usage_limits(platform: Platform) -> Iterable[Cause]:
    """Each mark that is passed is a cause of its own, until the month is over."""
    for used in usage.near_limits(platform):
        for kind in used.limits:
            for mark in (mark for mark in usage.MARKS if used.percent(kind) >= mark):
                facts = {"org_id": str(used.org_id), "month": used.month, "what": kind, "percent": mark}
                yield Cause("usage_limit", f"{used.org_id}:{used.month}:{kind}:{mark}", facts)


def _usage(what: str, org_id: Any, used: int, quota: int) -> Iterable[Cause]:
    facts = {"org_id": str(org_id), "used": used, "quota": quota}
    if used >= 0.9 * quota:
        yield Cause(f"{what}_quota_near", str(org_id), facts)
    if used >= quota:
        yield Cause(f"{what}_quota_reached", str(org_id), facts)


def canary_look(redis: Steadiness) -> Look:
    """Plant the canary when it is time, and see how the last ones fared."""

    def find(platform: Platform) -> Iterable[Cause]:
        canary.tend(platform)
        seen = canary.look(platform)
        age = {} if seen.age_seconds is None else {"age_seconds": round(seen.age_seconds)}
        if seen.missed:
            yield Cause("canary_missed", facts=age)
        # While Redis was away web processes did the work, as they should; a worker gets time to return.
        if seen.workers_idle:
            is_new = not redis.lasts(2 * platform.settings.canary_seconds)
            yield Cause("workers_idle", facts={"last_done_by": seen.by or "nobody"}, is_doubtful=is_new)

    return Look(frozenset({"canary_missed", "workers_idle"}), find)


SHARED: tuple[Look, ...] = (
    Look(frozenset({"error_rate"}), _errors),
    Look(frozenset({"oldest_waiting"}), _oldest_waiting),
    Look(frozenset({"dead_letters"}), _dead_letters),
    Look(frozenset({"delivery_set_aside"}), _set_aside),
    Look(frozenset({"ledger_broken"}), _books),
    Look(frozenset({"credentials_refused"}), _refused_credentials),
    Look(frozenset({"calendar_channel_lapsing"}), _lapsing_channels),
    Look(frozenset({"calendar_conflict"}), _calendar_conflicts),
    Look(frozenset({"message_unknown"}), _unknown_messages),
    Look(frozenset({"unowned_event"}), _unowned),
    Look(frozenset({"forward_switched_off"}), _forwards_gone),
    Look(frozenset({"reconcile_missing"}), _reconciled),
    Look(frozenset({"webhook_quota_near", "webhook_quota_reached"}), _webhook_quotas),
    Look(frozenset({"api_quota_near", "api_quota_reached"}), _api_quotas),
    Look(frozenset({"usage_limit"}), _usage_limits),
)
