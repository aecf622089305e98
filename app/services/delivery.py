"""The only code that delivers: one lane, one delivery after the other, each attempt with a trace.

Four callers share it: the worker, the sync fallback, the sweep and a replay. Owns what an exception
means (retry, wait, bury) and the retry schedule; knows no provider and no queue library. No
transaction is open while a handler runs.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from app.errors import (
    CircuitOpen,
    CredentialsRefused,
    DatabaseUnavailable,
    PermanentFailure,
    ProviderUnavailable,
    TemporaryFailure,
)
from app.models import attempts, lanes
from app.models.lanes import ClaimedLane, QueuedDelivery
from app.models.recorded import Closed, Ending
from app.observability import context, metrics
from app.observability.errors import count, report
from app.observability.logging import get_logger
from app.services import retention
from app.services.isolation import Alone, run_isolated
from app.services.recording import Ended
from app.services.suspension import wait_if_suspended

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from app.services.platform import Platform

# In units of the first delay: 5 s, 30 s, 2 min, 10 min, 1 h, 3 h, 6 h, 12 h. Then it is dead.
SCHEDULE = (1, 6, 24, 120, 720, 2160, 4320, 8640)
JITTER = 0.2
MOST_CRASHES = 5
PARKED_FOR = 9  # times the circuit is open; within what a lane may be held for
# A lane gives its thread back after this long, so that another organization's next event gets its turn.
TURN_SECONDS = 0.25
RECORD_SECONDS = 20.0  # within a lease, so that mostly nobody has begun it anew meanwhile
RECORD_AGAIN_SECONDS = 0.5
BUG = "bug:"  # how an error code begins that no exception of ours has given

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Skip:
    """A handler's answer: there was nothing to do, and why."""

    reason: str


class Postponed(TemporaryFailure):
    """Nothing was tried yet, by plan: come back later. Costs no attempt."""

    code = "postponed"

    def __init__(self, message: str, *, after: timedelta) -> None:
        super().__init__(message, retry_after=after)


class LeaseLost(TemporaryFailure):
    """Another process has this lane now; whatever comes next is its business."""

    code = "lease_lost"


@dataclass(frozen=True, slots=True)
class Work:
    """One attempt, as a handler sees it."""

    platform: Platform
    lane: ClaimedLane
    delivery: QueuedDelivery

    def confirm(self) -> None:
        """Call right before an effect outside: raises LeaseLost when the lane is no longer ours."""
        with self.platform.database.transaction(system=True) as session:
            self.confirm_in(session)

    def confirm_in(self, session: Session) -> None:
        """The same in a transaction whose commit comes right before the effect."""
        if not lanes.is_held(session, self.lane.org_id, self.lane.lane_key, self.lane.token):
            raise LeaseLost


Handler = Callable[[Work], Skip | None]
UNHANDLED = "no handler for this type"


def skip_unhandled(_: Work) -> Skip:
    """The handler of what nobody handles; many of these are finished without it (``unattended.py``)."""
    return Skip(UNHANDLED)


def deliver_lane(platform: Platform, lane: ClaimedLane, keep_going: Callable[[], bool] = lambda: True) -> bool:
    """Deliver the lane's deliveries in order, stopping at the first that fails; True if more is due in it.

    Begins none when ``keep_going`` says no: then the lane is given back as it is.

    Never raises for a handler's failure. Raises DatabaseUnavailable when nothing can be recorded:
    then the lease runs out and somebody else goes on.
    """
    began = time.monotonic()
    for delivery in lane.deliveries:
        attempt_id = lane.attempt_id if delivery is lane.deliveries[0] else None
        has_time = keep_going() and time.monotonic() - began <= TURN_SECONDS
        if attempt_id is None and not (delivery.due and has_time):
            break
        if delivery.running_since is not None:
            if not _deliver_suspect(platform, lane, delivery):
                break
            continue
        done = deliver_one(platform, lane, delivery, attempt_id=attempt_id, releases=delivery is lane.deliveries[-1])
        if done.given_back:
            return done.more
        if not done.finished:
            break
    with platform.database.transaction(system=True) as session:
        if not lanes.lock_held(session, lane.org_id, lane.lane_key, lane.token):
            return False
        return lanes.release_lane(session, lane.org_id, lane.lane_key)


@dataclass(frozen=True, slots=True)
class Done:
    """What one attempt came to. ``given_back``: the lane is not held any longer; ``more``: and work is due in it."""

    finished: bool
    given_back: bool = False
    more: bool = False


def deliver_one(
    platform: Platform,
    lane: ClaimedLane,
    delivery: QueuedDelivery,
    *,
    attempt_id: int | None = None,
    releases: bool = False,
) -> Done:
    """One attempt at one delivery; ``attempt_id``, if it has begun already.

    With ``releases`` the lane is given back with its ending, in the same commit.
    """
    attempt_id = attempt_id or platform.recorder.begin(lane, delivery)
    if attempt_id is None:
        return Done(finished=False)
    if delivery.running_since is not None:
        metrics.attempt_ended(delivery.provider, delivery.type, "lost")  # its last one: beginning anew has closed it
    with context.bound(
        delivery_id=delivery.id,
        org_id=str(delivery.org_id),
        attempt=delivery.attempts + 1,
        provider=delivery.provider,
        type=delivery.type,
    ):
        began = time.monotonic()
        ending = _run(platform, lane, delivery)
        if ending.status in {"processed", "skipped"} and retention.stores_nothing(platform, delivery.org_id):
            ending = replace(ending, forgets=True)
        duration_ms = round((time.monotonic() - began) * 1000)
        ended = Ended(lane, delivery, ending, attempt_id, duration_ms, releases)
        recorded = _record_for_certain(platform, ended)
        _say(ending, held=recorded.held, duration_ms=duration_ms)
    if ending.status == "retrying" and recorded.held:
        platform.bell.ring_in(ending.delay_seconds)
        if ending.error_code == CircuitOpen.code and ending.waiting_on:
            platform.waker.parked(ending.waiting_on, since=began)
    _measure(delivery, ending, held=recorded.held, handler_seconds=duration_ms / 1000)
    return Done(ending.is_last, given_back=releases, more=recorded.more)


def _run(platform: Platform, lane: ClaimedLane, delivery: QueuedDelivery) -> Ending:
    waits = wait_if_suspended(platform, delivery.org_id)
    if waits is not None:
        return waits
    try:
        skipped = platform.handler(delivery.provider, delivery.type)(Work(platform, lane, delivery))
    except LeaseLost as error:
        # Written only if nobody took the lane after all (its lease ended unnoticed); then nothing was tried.
        return Ending("retrying", "lost", counts=False, error_code=error.code)
    except PermanentFailure as error:
        return Ending("dead", "dead", error_code=error.code, error=str(error))
    except TemporaryFailure as error:
        return _plan_retry(platform, lane, delivery, error)
    except Exception as error:  # noqa: BLE001 - a bug in a handler must cost a retry, never the worker
        report(error, where="delivery", event="handler.failed")
        return _plan_retry(platform, lane, delivery, error)
    if skipped is not None:
        return Ending("skipped", "skipped", note=skipped.reason)
    return Ending("processed", "processed")


def _plan_retry(platform: Platform, lane: ClaimedLane, delivery: QueuedDelivery, error: Exception) -> Ending:
    """The date of the next attempt, or the end: waiting for a circuit is free, everything else is counted."""
    code = getattr(error, "code", None) or f"{BUG}{type(error).__name__}"
    sentence = str(error) if isinstance(error, TemporaryFailure) else "the handler failed; see the log"
    wish = error.retry_after.total_seconds() if isinstance(error, TemporaryFailure) and error.retry_after else 0.0
    waiting_on = _waits_for(error, delivery)
    counts = not isinstance(error, CircuitOpen | Postponed) and not _is_probe(error)
    number = delivery.attempts + 1
    if isinstance(error, CircuitOpen) or _is_probe(error):
        delay = max(wish, _parked_seconds(platform))
    elif not counts:
        delay = wish
    elif number > len(SCHEDULE):
        return Ending("dead", "dead", error_code=code, error=sentence)
    else:
        planned = platform.settings.retry_base_seconds * SCHEDULE[number - 1]
        delay = max(wish, planned * random.uniform(1 - JITTER, 1 + JITTER))  # noqa: S311 - spreads retries
    return Ending(
        "retrying",
        "waiting" if not counts else "retry",
        delay_seconds=delay,
        counts=counts,
        waiting_on=waiting_on,
        error_code=code,
        error=sentence,
        new_lane=_lane_aside(platform, lane, delivery, delay),
    )


def _is_probe(error: Exception) -> bool:
    """Whether it only found out that the provider is still away: that speaks of the outage, not of this delivery."""
    return isinstance(error, ProviderUnavailable) and error.probing


def _parked_seconds(platform: Platform) -> float:
    """For how long to wait for a circuit, unless woken before (``waking.py``): then all is looked at anew."""
    return platform.settings.circuit_open_seconds * PARKED_FOR * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311


def _waits_for(error: Exception, delivery: QueuedDelivery) -> str | None:
    """Whose good news brings the next attempt forward: a circuit that closes, credentials that are renewed."""
    if isinstance(error, CircuitOpen | ProviderUnavailable):
        return error.circuit
    return attempts.credentials_of(delivery.org_id) if isinstance(error, CredentialsRefused) else None


def _lane_aside(platform: Platform, lane: ClaimedLane, delivery: QueuedDelivery, delay: float) -> str | None:
    """A lane of its own for a delivery that would keep those behind it waiting beyond the limit."""
    if ":aside:" in lane.lane_key or delivery.held_seconds + delay <= platform.settings.lane_hold_limit_seconds:
        return None
    log.warning("delivery.set_aside", delivery_id=delivery.id, org_id=str(delivery.org_id), type=delivery.type)
    return f"{lane.lane_key[:150]}:aside:{delivery.id}"


def _record_for_certain(platform: Platform, ended: Ended) -> Closed:
    """Record the ending.

    Tried again while the database is away, for at most ``RECORD_SECONDS``: a restart of it must not turn
    everything that was running into a suspect. Raises DatabaseUnavailable after that.
    """
    until = time.monotonic() + RECORD_SECONDS
    while True:
        try:
            return _record(platform, ended)
        except DatabaseUnavailable:
            if time.monotonic() > until:
                raise
            time.sleep(RECORD_AGAIN_SECONDS)


def _record(platform: Platform, ended: Ended) -> Closed:
    return platform.recorder.end(ended)


def _say(ending: Ending, *, held: bool, duration_ms: int) -> None:
    """The attempt's one line, with the ids that are bound; one that failed counts as an error."""
    say = log.info if ending.status in {"processed", "skipped"} else log.warning
    say(
        "delivery." + ("fenced" if not held else ending.outcome),
        duration_ms=duration_ms,
        error_code=ending.error_code,
    )
    if ending.outcome in {"retry", "dead"} and not (ending.error_code or "").startswith(BUG):
        count(f"delivery:{ending.error_code}")  # a bug was counted when it was reported


def _measure(delivery: QueuedDelivery, ending: Ending, *, held: bool, handler_seconds: float | None) -> None:
    """Count the attempt, and the delivery's end if this was it; ``handler_seconds`` None when it never ended."""
    outcome = ending.outcome if handler_seconds is not None else "lost"
    metrics.attempt_ended(delivery.provider, delivery.type, outcome, handler_seconds=handler_seconds)
    if held and ending.is_last:
        waited = (datetime.now(UTC) - delivery.received_at).total_seconds()
        metrics.delivery_ended(delivery.provider, delivery.type, ending.status, seconds=waited)


def _deliver_suspect(platform: Platform, lane: ClaimedLane, delivery: QueuedDelivery) -> bool:
    """A delivery whose last attempt never ended may be what killed its process: run it in one of its own."""
    if delivery.crashes + 1 >= MOST_CRASHES:
        ending = Ending("dead", "dead", error_code="crashed", error="it never ended in five attempts")
        with platform.database.transaction(system=True) as session:
            if not lanes.lock_held(session, lane.org_id, lane.lane_key, lane.token):
                return False
            attempts.end(session, ending, org_id=lane.org_id, delivery_id=delivery.id)
            attempts.close_lost(session, org_id=lane.org_id, delivery_id=delivery.id)
        _measure(delivery, ending, held=True, handler_seconds=None)
        log.error("delivery.dead", delivery_id=delivery.id, org_id=str(delivery.org_id), error_code="crashed")
        count("delivery:crashed")
        return True
    came_to = run_isolated(platform.settings, lane, delivery.id)
    if came_to is Alone.FINISHED:
        return True
    # Later, and a little later each time: what killed it may pass, and a process that cannot even be
    # started (no memory, a broken installation) must not be started again and again.
    delay = platform.settings.retry_base_seconds * (delivery.crashes + 1)
    with platform.database.transaction(system=True) as session:
        if lanes.lock_held(session, lane.org_id, lane.lane_key, lane.token):
            if came_to is Alone.DIED:
                _count_if_it_never_began(platform, session, lane, delivery)
            attempts.put_off_suspect(session, org_id=lane.org_id, delivery_id=delivery.id, delay_seconds=delay)
    platform.bell.ring_in(delay)
    return False


def _count_if_it_never_began(platform: Platform, session: Session, lane: ClaimedLane, delivery: QueuedDelivery) -> None:
    """What kills its process while it is only read would otherwise be tried for ever."""
    if attempts.number_of(session, org_id=lane.org_id, delivery_id=delivery.id) == delivery.attempts:
        attempts.begin(
            session,
            org_id=lane.org_id,
            lane_key=lane.lane_key,
            token=lane.token,
            delivery_id=delivery.id,
            process=platform.process_name(),
        )
        metrics.attempt_ended(delivery.provider, delivery.type, "lost")  # the one before: this beginning has closed it


def deliver_suspect_here(platform: Platform, lane: ClaimedLane, delivery_id: int) -> bool:
    """What the process of its own does: one attempt at the delivery, for the lane its parent holds."""
    try:
        return any(deliver_one(platform, lane, one).finished for one in lane.deliveries if one.id == delivery_id)
    except DatabaseUnavailable:
        return False
