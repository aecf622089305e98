"""Beginnings and endings of attempts, written together by the threads of one process that deliver side by side.

Owns the two transactions of an attempt: one before its handler starts, one after it has ended. The second gives the
lane back too, when nothing more of it is to be delivered here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from sqlalchemy.exc import DBAPIError

from app.database import STATEMENT_TIMEOUT_MS, Database
from app.errors import DatabaseUnavailable
from app.models import lanes
from app.models.lanes import ClaimedLane, QueuedDelivery
from app.models.recorded import Beginning, Closed, Closing, Ending, begin_all, end_held
from app.services import retention
from app.services.together import Together

WAIT_SECONDS = STATEMENT_TIMEOUT_MS / 1000


@dataclass(frozen=True, slots=True)
class Ended:
    """An attempt that has ended. ``releases``: the lane is to be given back with it."""

    lane: ClaimedLane
    delivery: QueuedDelivery
    ending: Ending
    attempt_id: int
    duration_ms: int
    releases: bool

    def closing(self) -> Closing:
        """As it is written."""
        lane, delivery = self.lane, self.delivery
        return Closing(
            lane.org_id,
            lane.lane_key,
            lane.token,
            delivery.id,
            self.attempt_id,
            self.duration_ms,
            self.ending,
            self.releases,
        )


class Recorder:
    """One process's. Thread-safe."""

    def __init__(self, database: Database, process_name: Callable[[], str]) -> None:
        self._database = database
        self._process_name = process_name
        self.beginnings: Together[Beginning, int | None] = Together(self._begin)
        self.endings: Together[Ended, Closed] = Together(self._end)

    def begin(self, lane: ClaimedLane, delivery: QueuedDelivery) -> int | None:
        """Count an attempt and leave its trace; None when the lane is no longer ours or the delivery is finished.

        Raises DatabaseUnavailable.
        """
        beginning = Beginning(lane.org_id, lane.lane_key, lane.token, delivery.id)
        return self.beginnings.do(beginning, key=delivery.id, seconds=WAIT_SECONDS)

    def begin_heads(self, claimed: list[ClaimedLane]) -> list[ClaimedLane]:
        """The lanes, whose threads are about to begin, with an attempt at the first delivery of each begun for them.

        Left to its own thread: a suspect, what is not due, a lane that comes alone; and all of them, when it fails.
        """
        heads = {lane.token: lane.deliveries[0] for lane in claimed if lane.deliveries}
        able = [
            lane
            for lane in claimed
            if lane.token in heads and heads[lane.token].due and heads[lane.token].running_since is None
        ]
        if len(able) < 2:
            return claimed
        try:
            begun = self._begin(
                [Beginning(lane.org_id, lane.lane_key, lane.token, heads[lane.token].id) for lane in able]
            )
        except (DatabaseUnavailable, DBAPIError):
            return claimed
        attempts = {lane.token: attempt_id for lane, attempt_id in zip(able, begun, strict=True)}
        return [replace(lane, attempt_id=attempts.get(lane.token)) for lane in claimed]

    def end(self, ended: Ended) -> Closed:
        """Write the ending, unless the lane has passed to another; the attempt's own row is closed in any case.

        Raises DatabaseUnavailable. Safe to repeat when it is not known whether the first time was committed.
        """
        return self.endings.do(ended, key=ended.lane.token, seconds=WAIT_SECONDS)

    def _begin(self, beginnings: list[Beginning]) -> list[int | None]:
        begun = begin_all(self._database.at_once(system=True), beginnings, process=self._process_name())
        return [begun.get(one.delivery_id) for one in beginnings]

    def _end(self, attempts: list[Ended]) -> list[Closed]:
        closings = [one.closing() for one in attempts]
        forgotten = [one for one in attempts if one.ending.forgets]
        if not forgotten:
            return end_held(self._database.at_once(system=True), closings)
        with self._database.transaction(system=True) as session:
            held = lanes.lock_all_held(session, [(one.org_id, one.lane_key, one.token) for one in closings])
            for one in forgotten:
                if one.lane.token in held:
                    retention.forget(session, one.delivery)
            return end_held(session, closings)
