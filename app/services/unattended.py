"""What nobody handles, finished many at a time: most of what a provider sends is stored, and nothing follows from it.

Owns which kinds of events these are (those seen among what was claimed, so whoever brings a handler has it called) and
what is said and counted of each, as of any attempt. Order, turns, books and traces are as in ``delivery.py``; there is
no lease, because nothing runs: what is not committed was not begun.
"""

from __future__ import annotations

import time
from concurrent.futures import Executor
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy.exc import DBAPIError

from app.errors import DatabaseUnavailable
from app.models import unattended
from app.models.lanes import FIRST_ORG, ClaimedLane
from app.models.unattended import Finished, Kinds
from app.observability import metrics
from app.observability.errors import report
from app.observability.logging import tell_all
from app.services.delivery import UNHANDLED, skip_unhandled

if TYPE_CHECKING:
    from app.services.platform import Platform

AT_ONCE = 250  # lanes: their locks are held, and intake to these calls waits, for some 30 ms
MOST_KINDS = 100
TURN_SECONDS = 0.1  # then those that have a handler get theirs
COMPANY_SECONDS = 60.0  # more than all waits of a last turn together


class Unattended:
    """One drain's. Remembers what it has seen, and whose turn it is."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._kinds: set[tuple[str, str]] = set()
        self._after = FIRST_ORG
        self._worth_a_look = False

    def take(self, claimed: list[ClaimedLane]) -> list[ClaimedLane]:
        """Finish those of the claimed lanes that begin with nobody's; the others, and all of them when it fails."""
        able = [lane for lane in claimed if self._begins_with_one(lane)]
        if not able:
            return claimed
        self._worth_a_look = True
        try:
            finished = unattended.finish_held(self._platform.database.at_once(system=True), self._known(), able)
        except (DatabaseUnavailable, DBAPIError):
            return claimed  # each thread meets it alone, and says so
        _tell(finished)
        done = {(one.org_id, one.lane_key) for one in finished}
        return [lane for lane in claimed if (str(lane.org_id), lane.lane_key) not in done]

    def _begins_with_one(self, lane: ClaimedLane) -> bool:
        first = lane.deliveries[0] if lane.deliveries else None
        if first is None or not first.due or first.running_since is not None:
            return False
        kind = (first.provider, first.type)
        if self._platform.handler(*kind) is not skip_unhandled:
            return False
        if len(self._kinds) < MOST_KINDS:
            self._kinds.add(kind)
        return kind in self._kinds

    def _known(self) -> Kinds:
        kinds = {kind for kind in self._kinds if self._platform.handler(*kind) is skip_unhandled}
        return Kinds(kinds, note=UNHANDLED, process=self._platform.process_name())

    def begin(self) -> None:
        """A drain begins: there may be something."""
        self._worth_a_look = bool(self._kinds)

    def finish(self, full: list[UUID], company: Executor) -> int:
        """Finish the next turns', if there may be any, and go on while they are full; how many.

        In ``company`` of another thread once one was full: while one waits for the database, the other tells what it
        has finished. Raises DatabaseUnavailable.
        """
        return self._finish(full, time.monotonic() + TURN_SECONDS, company)

    def _finish(self, full: list[UUID], until: float, company: Executor | None) -> int:
        done, other = 0, None
        at_once = self._platform.database.at_once(system=True)
        while self._worth_a_look and time.monotonic() < until:
            after = self._after
            try:
                sweep = unattended.finish_in_turn(at_once, self._known(), after=after, most=AT_ONCE, full=full)
            except DBAPIError as error:  # a deadlock, a lock that was not had in time: they go the usual way
                report(error, where="delivery", event="delivery.sweep_failed")
                self._worth_a_look = False
                break
            self._worth_a_look = bool(sweep.finished) or sweep.next_org is not None or after != FIRST_ORG
            self._after = sweep.next_org or FIRST_ORG
            done += len(sweep.finished)
            few = 2 * len(sweep.finished) < AT_ONCE
            if not few and company is not None and other is None:
                other = company.submit(self._finish, full, until, None)
            _tell(sweep.finished)
            if few and (after == FIRST_ORG or sweep.next_org is not None):
                break  # at the end of a round the next begins at once: its first may have thousands waiting
        return done + (other.result(timeout=COMPANY_SECONDS) if other is not None else 0)


def _tell(finished: list[Finished]) -> None:
    """One line and one count for each, as of any attempt."""
    tell_all(
        __name__,
        "delivery.skipped",
        (
            {
                "delivery_id": one.id,
                "org_id": one.org_id,
                "attempt": one.attempts,
                "provider": one.provider,
                "type": one.type,
                "duration_ms": 0,
                "error_code": None,
            }
            for one in finished
        ),
    )
    for one in finished:
        metrics.attempt_ended(one.provider, one.type, "skipped", handler_seconds=0.0)
        metrics.delivery_ended(one.provider, one.type, "skipped", seconds=one.seconds)
