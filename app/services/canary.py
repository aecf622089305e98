"""The canary: an event of our own, sent the whole way through intake, queue and worker, to see that work moves.

Owns when one is planted and what its fate means. Pings say that a process lives; a canary that comes out
at the other end says that it works. A worker that is alive and does nothing is found by who delivered the
last two: web processes deliver what no worker takes, so nothing is lost meanwhile, and nobody would notice.
All dates are the database's.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from app.integrations.events import InboundEvent
from app.models import canaries
from app.models.canaries import Canary
from app.models.deliveries import CANARY_ORG_ID, INTERNAL_PROVIDER
from app.services import intake

if TYPE_CHECKING:
    from app.services.delivery import Work
    from app.services.platform import Platform

TYPE = "canary"
INTEGRATION_ID = UUID("00000000-0000-4000-8000-0000000ca9a2")  # its keys are unique within this
MISSED_AFTER = 2.0  # intervals without one that came through
# A share of the interval, and a least of seconds: a canary that no worker has begun by then is one that
# none has taken, and is asked again at once instead of an interval later. Looked at every 10 s, with one
# every 60 s: a worker that stops right after a canary leaves the next one, planted after 70 s at the latest,
# and the second at 80 s; both are known at 90 s. So there is time to look twice within two minutes.
TAKEN_WITHIN = 0.15
TAKEN_WITHIN_AT_LEAST_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class CanaryReport:
    """How the canaries fare. ``age_seconds``: since the last one came through; None when none ever did.

    ``by`` is the kind of process that brought it through (``worker``, ``web``, ``cli``). ``missed``: one was
    planted more than two intervals ago and none has come through since. ``workers_idle``: Redis answers, and
    the last two were not delivered by a worker.
    """

    planted_at: datetime | None
    processed_at: datetime | None
    age_seconds: float | None
    by: str | None
    missed: bool
    workers_idle: bool


@dataclass(frozen=True, slots=True)
class _House:
    """Where canaries come from: no endpoint, nobody's integration."""

    org_id: UUID = CANARY_ORG_ID
    integration_id: UUID = INTEGRATION_ID


def tend(platform: Platform) -> bool:
    """Plant a canary if none was planted in this interval; a second one when no worker takes it. True if planted.

    Safe to call from any number of processes as often as they like: the interval's number is the event's key,
    so intake stores it once. Raises DatabaseUnavailable.
    """
    every = platform.settings.canary_seconds
    with platform.database.transaction(system=True) as session:
        slot = str(canaries.current_slot(session, every_seconds=every))
        newest = canaries.last_planted(session, limit=2)
    again = f"{slot}:again"
    keys = {canary.event_key for canary in newest}
    if not keys & {slot, again}:
        return _plant(platform, slot)
    if again not in keys and _is_left(newest[0], _patience(platform)) and platform.redis_answers():
        return _plant(platform, again)
    return False


def look(platform: Platform) -> CanaryReport:
    """How the canaries fare. Raises DatabaseUnavailable."""
    with platform.database.transaction(system=True, statement_timeout_ms=2000) as session:
        newest = canaries.last_planted(session, limit=4)
        last = canaries.last_processed(session)
        waiting = canaries.first_planted_after(session, last.id if last else 0)
    missing_for = waiting.age_seconds if waiting else 0.0
    if last and last.finished_seconds_ago is not None:
        missing_for = min(missing_for, last.finished_seconds_ago)
    return CanaryReport(
        planted_at=newest[0].planted_at if newest else None,
        processed_at=last.finished_at if last else None,
        age_seconds=round(last.finished_seconds_ago, 1) if last and last.finished_seconds_ago is not None else None,
        by=_kind(last) if last else None,
        missed=missing_for > MISSED_AFTER * platform.settings.canary_seconds,
        workers_idle=_are_left(newest, _patience(platform)) and platform.redis_answers(),
    )


def arrive(_: Work) -> None:
    """The canary's handler: to have come this far is all it is for."""


def _plant(platform: Platform, key: str) -> bool:
    event = InboundEvent(INTERNAL_PROVIDER, TYPE, event_key=key, lane_key=f"canary:{key}", payload={})
    return not intake.accept(platform, _House(), event).duplicate


def _patience(platform: Platform) -> float:
    return max(TAKEN_WITHIN_AT_LEAST_SECONDS, TAKEN_WITHIN * platform.settings.canary_seconds)


def _are_left(newest: list[Canary], patience: float) -> bool:
    """Whether no worker took the last two that can be judged by now."""
    judged = [canary for canary in newest if canary.process is not None or canary.age_seconds > patience][:2]
    return len(judged) == 2 and all(_is_left(canary, patience) for canary in judged)


def _is_left(canary: Canary, patience: float) -> bool:
    """Whether somebody else had to deliver it, or nobody has begun in time. One a worker hangs in is left too."""
    if canary.process is None or canary.finished_at is None:
        return canary.age_seconds > patience
    return _kind(canary) != "worker"


def _kind(canary: Canary) -> str | None:
    return canary.process.partition(":")[0] if canary.process else None
