"""What is read, not counted: how many wait, whether the books balance, which circuits are open.

Owns the questions asked at a scrape, and that they cost little: each answer is kept for five seconds in
this process, each question has its time limit, and one that cannot be answered leaves its own metrics out
and says so in ``voicedesk_measured``. A scrape is answered whatever is away. Must never name an
organization: how many there are is all that is told.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from sqlalchemy.exc import DBAPIError

from app.errors import VoicedeskError
from app.integrations.breaker import circuits
from app.models import ledger
from app.models.deliveries import count_unfinished
from app.models.lanes import oldest_within_quota
from app.models.quotas import count_overruns
from app.observability import metrics
from app.observability.errors import report
from app.observability.logging import describe, get_logger
from app.services import alerts, canary
from app.services.alert_texts import WORDINGS

if TYPE_CHECKING:
    from app.services.platform import Platform

KEPT_SECONDS = 5.0
LONGEST_SECONDS = 5.0  # a question is not begun later than this: Prometheus waits ten seconds for all
LOOK_MS = 2000
STATES = {"closed": 0, "half_open": 1, "open": 2}
GAUGES: dict[str, tuple[str, tuple[str, ...]]] = {  # what it means, and its labels
    "measured": ("Whether a part could be measured at this scrape", ("part",)),
    "database_up": ("Whether the database answers", ()),
    "redis_up": ("Whether Redis answers", ()),
    "deliveries_waiting": ("Deliveries that are not finished", ("status",)),
    "oldest_waiting_seconds": ("How long the oldest due delivery has been due, of who is within quota", ()),
    "ledger": ("Both sides of the books, over all organizations", ("side",)),
    "ledger_difference": ("Accepted events that nobody can account for", ()),
    "spool_events": ("Webhooks on this host's disk that the database has not taken yet", ()),
    "spool_bytes": ("How large this host's spool is", ()),
    "spool_oldest_seconds": ("How long the first of them has been there", ()),
    "spool_set_aside": ("Lines of this host's spool that need a person", ()),
    "spool_takes": ("Whether this host's spool would take a webhook", ()),
    "canary_age_seconds": ("Since the last canary came through", ()),
    "canary_missed": ("Whether canaries are planted and none comes through", ()),
    "workers_idle": ("Whether workers are there to work and do not", ()),
    "circuit_state": ("0 closed, 1 half open, 2 open", ("circuit",)),
    "open_alerts": ("What is wrong now, by kind", ("kind",)),
    "webhook_quota_overruns": ("Organizations that are last in turn because they are over quota", ()),
    "api_quota_near": ("Organizations at 90 % of their API quota or more", ()),
    "quota_counts_alone": ("Whether the process that answers counts requests without the others", ()),
}

log = get_logger(__name__)


def exposition(platform: Platform, accept: str) -> tuple[bytes, str]:
    """Everything as Prometheus wants it, and its content type; ``accept`` is what it said it understands.

    Raises counting.FolderBusy.
    """
    encode, content_type = choose_encoder(accept)
    return encode(_Everything([*metrics.collect(), *platform.measurements.collect()])), content_type


class Measurements:
    """One process's view of what is measured. Thread-safe: many scrapes at once ask once."""

    def __init__(self, platform: Platform) -> None:
        if metrics.fault:
            log.error("metrics.counted_alone", reason=metrics.fault)
        self._platform = platform
        self._lock = threading.Lock()
        self._taken_at = 0.0
        self._taken: list[Metric] = []

    def collect(self) -> list[Metric]:
        """All of it, at most five seconds old. Never raises."""
        with self._lock:
            if not self._taken or time.monotonic() - self._taken_at > KEPT_SECONDS:
                self._taken = self._take()
                self._taken_at = time.monotonic()
            return self._taken

    def _take(self) -> list[Metric]:
        measured = _gauge("measured")
        taken: list[Metric] = [measured]
        until = time.monotonic() + LONGEST_SECONDS
        for part in PARTS:
            found = self._ask(part) if time.monotonic() < until else []
            measured.add_metric([part], 1.0 if found else 0.0)
            taken += found
        return taken

    def _ask(self, part: str) -> list[Metric]:
        """The part's metrics; none when it cannot be measured."""
        try:
            return list(PARTS[part](self._platform))
        except VoicedeskError:
            return []  # the database is away: `database_up` says so
        except DBAPIError as error:
            log.warning("measurement.failed", part=part, **describe(error))  # mostly its time limit
        except Exception as error:  # noqa: BLE001 - one part's bug must not take the others along
            report(error, where="web", event="measurement.failed", part=part)
        return []


def _servers(platform: Platform) -> Iterable[Metric]:
    try:
        platform.database.ping()
        database = 1.0
    except VoicedeskError:
        database = 0.0
    yield _value("database_up", database)
    if platform.redis.configured:
        yield _value("redis_up", float(platform.redis_answers()))


def _queue(platform: Platform) -> Iterable[Metric]:
    with platform.database.transaction(system=True, statement_timeout_ms=LOOK_MS) as session:
        oldest = oldest_within_quota(session)
        waiting = count_unfinished(session)
    family = _gauge("deliveries_waiting")
    for status, count in waiting.items():
        family.add_metric([status], count)
    yield family
    yield _value("oldest_waiting_seconds", oldest)


def _ledger(platform: Platform) -> Iterable[Metric]:
    with platform.database.transaction(system=True, statement_timeout_ms=LOOK_MS) as session:
        balance = ledger.balance(session)
    family = _gauge("ledger")
    for side in ("accepted", "processed", "skipped", "dead", "erased", "waiting"):
        family.add_metric([side], getattr(balance, side))
    yield family
    yield _value("ledger_difference", balance.difference)


def _spool(platform: Platform) -> Iterable[Metric]:
    found = platform.spool.contents()
    yield _value("spool_events", found.lines)
    yield _value("spool_bytes", found.bytes)
    yield _value("spool_oldest_seconds", max(0.0, time.time() - found.oldest) if found.oldest is not None else 0.0)
    yield _value("spool_set_aside", found.aside)
    yield _value("spool_takes", float(platform.spool.fault() is None))


def _canary(platform: Platform) -> Iterable[Metric]:
    found = canary.look(platform)
    if found.age_seconds is not None:
        yield _value("canary_age_seconds", found.age_seconds)
    yield _value("canary_missed", float(found.missed))
    yield _value("workers_idle", float(found.workers_idle))


def _circuits(_: Platform) -> Iterable[Metric]:
    family = _gauge("circuit_state")
    for circuit in circuits.states():
        family.add_metric([circuit.name], STATES[circuit.state])
    yield family


def _alerts(platform: Platform) -> Iterable[Metric]:
    family = _gauge("open_alerts")
    count = Counter(alert.kind for alert in alerts.open_alerts(platform))
    for kind in WORDINGS:
        family.add_metric([kind], count[kind])
    yield family


def _quotas(platform: Platform) -> Iterable[Metric]:
    with platform.database.transaction(system=True, statement_timeout_ms=LOOK_MS) as session:
        over = count_overruns(session)
    near = platform.quotas.near_limit()
    yield _value("webhook_quota_overruns", over)
    yield _value("api_quota_near", len(near))
    alone = float(platform.quotas.cannot_count())
    yield _value("quota_counts_alone", alone)


PARTS: dict[str, Callable[[Platform], Iterable[Metric]]] = {
    "servers": _servers,
    "circuits": _circuits,
    "spool": _spool,
    "queue": _queue,
    "ledger": _ledger,
    "canary": _canary,
    "alerts": _alerts,
    "quotas": _quotas,
}


class _Everything:
    """What the encoders of the library take for a registry."""

    def __init__(self, found: Iterable[Metric]) -> None:
        self._found = found

    def collect(self) -> Iterable[Metric]:
        return self._found


def _gauge(name: str) -> GaugeMetricFamily:
    meaning, labels = GAUGES[name]
    return GaugeMetricFamily(f"voicedesk_{name}", meaning, labels=labels)


def _value(name: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"voicedesk_{name}", GAUGES[name][0], value=value)
