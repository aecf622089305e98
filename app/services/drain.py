"""Claims until nothing is due: the loop around delivery, with threads, leases and fair turns.

Owns how many deliveries of whom run at once in this process, and the renewing of their leases. A
drain is bounded in time; whoever starts one (worker, fallback, sweep) starts the next.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING
from uuid import UUID

from app.errors import DatabaseUnavailable
from app.models import lanes
from app.models.lanes import FIRST_ORG, Claim, ClaimedLane
from app.observability.errors import count, report
from app.observability.logging import get_logger
from app.services.clock import Clock
from app.services.delivery import RECORD_SECONDS, deliver_lane
from app.services.unattended import Unattended
from app.services.webhook_quotas import LastInTurn

if TYPE_CHECKING:
    from app.services.platform import Platform

DRAIN_SECONDS = 20.0  # well inside the job's time limit; then another job begins where this one ended
OVERTIME_SECONDS = 60.0  # goes on claiming that long while slow handlers run, or their neighbours would wait
RENEWALS_PER_LEASE = 3
ALLOWANCE_SECONDS = RECORD_SECONDS + 5.0  # beyond a handler's bound, for recording what it came to
LOOK_AGAIN_SECONDS = 0.05
# While most threads are busy the next claim waits a moment, if the last was a moment ago: quick handlers end one right
# after the other, and share it.
BREATH_SECONDS, MOST_BREATH_SECONDS = 0.002, 0.01
SHARE_OF_ONE = 0.75  # of the threads, for one organization, so that another's next event finds one free

log = get_logger(__name__)


class Drain:
    """One process's drain. Remembers whose turn it is from one run to the next; one run at a time."""

    def __init__(self, platform: Platform, *, threads: int) -> None:
        self._platform = platform
        self._threads = threads
        self._most_of_one = max(1, int(threads * SHARE_OF_ONE))
        self._after = FIRST_ORG
        self._last_in_turn = LastInTurn(platform)
        self._unattended = Unattended(platform)
        self.clock = Clock(platform)
        self._nothing_this_round = False
        self._claimed_at = 0.0
        self._one_at_a_time = threading.Lock()
        self._keeper: _LeaseKeeper | None = None
        self._ending = threading.Event()

    def run(self, *, seconds: float = DRAIN_SECONDS, keep_going: Callable[[], bool] = lambda: True) -> int:
        """Deliver what is due until nothing is, or the time is up; return how many lanes were delivered.

        Raises DatabaseUnavailable when claiming fails, after what was running has ended.
        """
        if not self._one_at_a_time.acquire(blocking=False):
            return 0  # one is running here already, and it claims until nothing is due

        def going() -> bool:
            return keep_going() and not self._ending.is_set()

        try:
            self._platform.bell.answer()
            # The keeper ends last: leaving the pool waits for what runs, and that needs its lease until then.
            self._keeper = _LeaseKeeper(self._platform)
            with (
                self._keeper as keeper,
                ThreadPoolExecutor(self._threads, "deliver") as pool,
                ThreadPoolExecutor(1, "sweep") as company,
            ):
                return self._loop(pool, company, keeper, seconds, going)
        finally:
            self._one_at_a_time.release()
            if not going():
                self._platform.bell.ring()  # what the lanes given back still hold is for another process

    def claim_no_more(self) -> None:
        """End early, and never begin again: this process is about to end. Returns at once."""
        self._ending.set()

    def runs_others(self) -> bool:
        """Whether anything runs here that is within its bound."""
        return self._keeper is not None and self._keeper.runs_others()

    def give_back(self, *, statement_timeout_ms: int) -> None:
        """Make every lane that is held here due now, for a process that leaves without waiting for what runs.

        A handler that still runs has lost its lane, as at the end of a lease. Raises DatabaseUnavailable.
        """
        held = self._keeper.held() if self._keeper is not None else []
        if held:
            with self._platform.database.transaction(system=True, statement_timeout_ms=statement_timeout_ms) as session:
                given = lanes.give_back_lanes(session, held)
            log.warning("drain.given_back", lanes=given)

    def _loop(
        self,
        pool: ThreadPoolExecutor,
        company: ThreadPoolExecutor,
        keeper: _LeaseKeeper,
        seconds: float,
        keep_going: Callable[[], bool],
    ) -> int:
        began = time.monotonic()
        running: dict[Future[None], ClaimedLane] = {}
        delivered = 0
        was_full = False
        self._unattended.begin()
        while True:
            running = {future: lane for future, lane in running.items() if not future.done()}
            elapsed = time.monotonic() - began
            if not keep_going() or elapsed > max(seconds, OVERTIME_SECONDS) or (elapsed > seconds and not running):
                self._platform.bell.ring()  # there may be more; somebody else goes on at once
                return delivered
            self.clock.look()
            self._platform.directory.keep_fresh()
            skipped = self._unattended.finish(self._last_in_turn.organizations(), company)
            free = self._threads - len(running)
            claim, began_round = self._claim(free, running) if free else (Claim([], None), False)
            attended = self._unattended.take(claim.lanes)
            for lane in attended:
                keeper.add(lane)
            for lane in self._platform.recorder.begin_heads(attended):
                running[pool.submit(self._deliver, lane, keeper, keep_going)] = lane
            delivered += len(claim.lanes) + skipped
            full = free > 0 and len(running) >= self._most_of_one
            if full and not was_full:
                self._platform.bell.ring()  # there is more than enough: another worker may join
            was_full = full
            if not running and not claim.lanes and not skipped and claim.next_org is None and began_round:
                return delivered
            if running and not claim.lanes and not skipped:
                wait(running, timeout=LOOK_AGAIN_SECONDS if free else 1.0, return_when=FIRST_COMPLETED)
                self._take_breath(running)

    def _take_breath(self, running: dict[Future[None], ClaimedLane]) -> None:
        """Let those that end together share the next claim; as long as any end, and most still run."""
        now = time.monotonic()
        until = now + MOST_BREATH_SECONDS if now - self._claimed_at < MOST_BREATH_SECONDS else now
        before, busy = self._threads + 1, self._threads
        while busy < before and 2 * busy > self._threads and time.monotonic() < until:
            time.sleep(BREATH_SECONDS)
            before, busy = busy, sum(not future.done() for future in running)

    def _claim(self, free: int, running: dict[Future[None], ClaimedLane]) -> tuple[Claim, bool]:
        """The next turn, and whether it began a round: an empty whole round means that nothing is due.

        Who is over their quota has no turn, unless a whole round has found nothing else.
        """
        last = self._last_in_turn.organizations()
        load = Counter(lane.org_id for lane in running.values())
        full = [*_at_their_share(load, self._most_of_one), *last]
        busiest = max((count for org_id, count in load.items() if org_id not in full), default=0)
        began_round = self._after == FIRST_ORG
        claim = lanes.claim_lanes(
            self._platform.database.at_once(system=True),
            after=self._after,
            most=free,
            per_org=min(free, self._most_of_one - busiest),
            lease_seconds=self._platform.settings.lease_seconds,
            full=full,
        )
        self._claimed_at = time.monotonic()
        self._after = claim.next_org or FIRST_ORG
        self._nothing_this_round = not claim.lanes and (began_round or self._nothing_this_round)
        if last and self._nothing_this_round and claim.next_org is None:
            claim = self._claim_last(last, free, len(running))
        return claim, began_round

    def _claim_last(self, last: list[UUID], free: int, running: int) -> Claim:
        """Lanes of those who are over their quota, all together within the share that one may have of the threads."""
        most = min(free, self._most_of_one - running)
        if most <= 0:
            return Claim([], None)
        random.shuffle(last)  # they take turns too
        claim = lanes.claim_lanes(
            self._platform.database.at_once(system=True),
            after=FIRST_ORG,
            most=most,
            per_org=max(1, most // len(last)),
            lease_seconds=self._platform.settings.lease_seconds,
            full=[],
            only=last,
        )
        return Claim(claim.lanes, None)

    def _deliver(self, lane: ClaimedLane, keeper: _LeaseKeeper, keep_going: Callable[[], bool]) -> None:
        try:
            deliver_lane(self._platform, lane, keep_going)
        except DatabaseUnavailable:
            log.warning("delivery.unrecorded", lane_token=lane.token)  # its lease ends, and it is done again
        except Exception as error:  # noqa: BLE001 - one lane's trouble must not end the drain of the others
            report(error, where="delivery", event="delivery.failed", lane_token=lane.token)
        finally:
            keeper.remove(lane)


def _at_their_share(load: Counter[UUID], most: int) -> list[UUID]:
    return [org_id for org_id, count in load.items() if count >= most]


class _LeaseKeeper:
    """Renews the leases of the lanes that run here, from a thread of its own."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._lease_seconds = platform.settings.lease_seconds
        limit = platform.settings.handler_limit_seconds
        self._bound_seconds = limit + min(ALLOWANCE_SECONDS, limit / 2)
        self._look_every = min(self._lease_seconds / RENEWALS_PER_LEASE, limit / 10)
        self._told = False
        self._held: dict[int, tuple[ClaimedLane, float]] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease-keeper", daemon=True)

    def __enter__(self) -> _LeaseKeeper:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(timeout=self._lease_seconds)

    def add(self, lane: ClaimedLane) -> None:
        with self._lock:
            self._held[lane.token] = (lane, time.monotonic())

    def remove(self, lane: ClaimedLane) -> None:
        with self._lock:
            self._held.pop(lane.token, None)

    def held(self) -> list[tuple[UUID, str, int]]:
        with self._lock:
            return sorted((lane.org_id, lane.lane_key, lane.token) for lane, _ in self._held.values())

    def runs_others(self) -> bool:
        now = time.monotonic()
        with self._lock:
            return any(now - since < self._bound_seconds for _, since in self._held.values())

    def _tell_of_stuck(self, stuck: list[ClaimedLane]) -> None:
        """A thread cannot be stopped: the process has to go, and whoever takes its lanes finds a suspect."""
        if self._told or not stuck:
            return
        self._told = True
        for lane in stuck:
            log.error("handler.stuck", org_id=str(lane.org_id), lane_token=lane.token)
            count("handler:stuck")
        if self._platform.on_stuck is not None:
            self._platform.on_stuck()

    def _run(self) -> None:
        while not self._ended.wait(self._look_every):
            now = time.monotonic()
            with self._lock:
                lanes_held = list(self._held.values())
            self._tell_of_stuck([lane for lane, since in lanes_held if now - since >= self._bound_seconds])
            held = [
                (lane.org_id, lane.lane_key, lane.token)
                for lane, since in lanes_held
                if now - since < self._bound_seconds
            ]
            if not held:
                continue
            try:
                with self._platform.database.transaction(system=True) as session:
                    lanes.renew_leases(session, sorted(held), lease_seconds=self._lease_seconds)
            except DatabaseUnavailable:
                log.warning("lease.not_renewed", lanes=len(held))
            except Exception as error:  # noqa: BLE001 - the keeper must outlive one bad renewal
                report(error, where="thread", event="lease.not_renewed", lanes=len(held))
