"""What nobody handles, finished many at a time: most of what a provider sends is stored, and nothing follows from it.

Owns which kinds of events these are (those seen among what was claimed, so whoever brings a handler has it called) and
what is said and counted of each, as of any attempt. Order, turns, books and traces are as in ``delivery.py``; there is
no lease, because nothing runs: what is not committed was not begun.
"""

from __future__ import annotations

import time
from concurrent.futures import Executor, Future
from datetime import UTC, datetime
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
TELL_SECONDS = 30.0


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
            with self._platform.database.transaction(system=True) as session:
                finished = unattended.finish_held(session, self._known(), able)
        except (DatabaseUnavailable, DBAPIError):
            return claimed  # each thread meets it alone, and says so
        _tell(finished)
        done = {(one.org_id, one.lane_key) for one in finished}
        return [lane for lane in claimed if (lane.org_id, lane.lane_key) not in done]

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

    def finish(self, full: list[UUID], teller: Executor) -> int:
        """Finish the next turns', if there may be any, and go on while they are full; how many.

        ``teller`` has one thread: what was finished is told of while the database finishes the next.
        Raises DatabaseUnavailable.
        """
        done, until = 0, time.monotonic() + TURN_SECONDS
        telling: Future[None] | None = None
        while self._worth_a_look and time.monotonic() < until:
            began_round = self._after == FIRST_ORG
            try:
                with self._platform.database.transaction(system=True) as session:
                    sweep = unattended.finish_in_turn(
                        session, self._known(), after=self._after, most=AT_ONCE, full=full
                    )
            except DBAPIError as error:  # a deadlock, a lock that was not had in time: they go the usual way
                report(error, where="delivery", event="delivery.sweep_failed")
                self._worth_a_look = False
                break
            self._worth_a_look = bool(sweep.finished) or sweep.next_org is not None or self._after != FIRST_ORG
            self._after = sweep.next_org or FIRST_ORG
            done += len(sweep.finished)
            if telling is not None:
                telling.result(timeout=TELL_SECONDS)
            telling = teller.submit(_tell, sweep.finished)
            few = 2 * len(sweep.finished) < AT_ONCE
            if few and (began_round or sweep.next_org is not None):
                break  # at the end of a round the next begins at once: its first may have thousands waiting
        return done


def _tell(finished: list[Finished]) -> None:
    """One line and one count for each, as of any attempt."""
    now = datetime.now(UTC)
    tell_all(
        __name__,
        "delivery.skipped",
        (
            {
                "delivery_id": one.id,
                "org_id": str(one.org_id),
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
        metrics.delivery_ended(one.provider, one.type, "skipped", seconds=(now - one.received_at).total_seconds())
