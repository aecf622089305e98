"""Deliveries that no handler is there for, finished many at a time: begun, ended and booked in one commit.

Owns the statements. What a lease is for, the time while a handler runs, does not exist here: the lanes are locked
for the one transaction, and whoever dies in it has begun nothing. Lanes, turns and order are those of ``lanes.py``.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from app.models.deliveries import UNFINISHED
from app.models.lanes import (
    ALONG_THE_INDEX,
    EVENTS_PER_CLAIM,
    MOST_STEPS,
    PICKED_HELD,
    PICKED_IN_TURN,
    ClaimedLane,
    release_lanes,
)

# By ids in an array and ``finished_at``: joined, or asked for UNFINISHED, all that waits may be read for it.
# Of each lane those at its beginning that may be finished: due, never begun and left, and nobody's to handle.
_FINISH = f"""
    WITH RECURSIVE {{picked}}, able AS MATERIALIZED (
        SELECT p.org_id, d.id FROM picked p CROSS JOIN LATERAL (
            SELECT id, bool_and(able) OVER (ORDER BY id) AS able FROM (
                SELECT d.id, d.next_attempt_at <= now() AND d.running_since IS NULL AND (d.provider, d.type) IN
                    (SELECT * FROM unnest(CAST(:providers AS text[]), CAST(:types AS text[]))) AS able
                FROM webhook_delivery_log d
                WHERE d.org_id = p.org_id AND d.lane_key = p.lane_key AND d.{UNFINISHED}
                ORDER BY d.id LIMIT {EVENTS_PER_CLAIM}
            ) first
        ) d
        WHERE d.able AND NOT EXISTS (
            SELECT FROM organizations o
            WHERE o.id = p.org_id AND (o.suspended_at IS NOT NULL OR o.keep_words_days = 0)
        )
    ), ended AS (
        UPDATE webhook_delivery_log d
        SET status = 'skipped', note = :note, attempts = d.attempts + 1, finished_at = now(),
            waiting_on = NULL, error_code = NULL, held_since = NULL
        WHERE d.id = ANY (ARRAY(SELECT id FROM able)) AND d.finished_at IS NULL AND d.running_since IS NULL
        RETURNING d.org_id, d.id, d.lane_key, d.provider, d.type, d.attempts, d.received_at
    ), traced AS (
        INSERT INTO delivery_attempts
            (org_id, delivery_id, number, lane_token, process, ended_at, duration_ms, outcome)
        SELECT org_id, id, attempts, nextval('lane_tokens'), :process, now(), 0, 'skipped' FROM ended
    ), booked AS (
        INSERT INTO ledger_entries (org_id, provider, skipped)
        SELECT org_id, provider, count(*) FROM ended GROUP BY org_id, provider
    )
    SELECT org_id, id, lane_key, provider, type, attempts, received_at, NULL AS picked, NULL AS cut_short FROM ended
    UNION ALL
    SELECT (array_agg(org_id ORDER BY org_id DESC))[1], NULL, NULL, NULL, NULL, NULL, NULL, count(lane_key),
           bool_or(lane_key IS NULL)
    FROM picked
"""
_FINISH_IN_TURN = text(ALONG_THE_INDEX + _FINISH.format(picked=PICKED_IN_TURN))
_FINISH_HELD = text(_FINISH.format(picked=PICKED_HELD))


@dataclass(frozen=True, slots=True)
class Finished:
    """One that was finished, after ``attempts`` of which this is the last."""

    org_id: UUID
    id: int
    lane_key: str
    provider: str
    type: str
    attempts: int
    received_at: datetime


@dataclass(frozen=True, slots=True)
class Sweep:
    """What one turn came to. ``next_org``: where the next begins; None when the round is complete."""

    finished: list[Finished]
    next_org: UUID | None


@dataclass(frozen=True, slots=True)
class Kinds:
    """Which deliveries these are, by (provider, type), and what is noted of them: why, and by which process."""

    kinds: Collection[tuple[str, str]]
    note: str
    process: str

    def plain(self) -> dict[str, Any]:
        """As the statements want it."""
        return {
            "providers": [provider for provider, _ in self.kinds],
            "types": [kind for _, kind in self.kinds],
            "note": self.note,
            "process": self.process,
        }


def finish_in_turn(session: Session, kinds: Kinds, *, after: UUID, most: int, full: list[UUID]) -> Sweep:
    """Finish what waits of them at the beginning of up to ``most`` due lanes that nobody holds.

    Left to the usual way: organizations that are ``full``, suspended, or keep no words.
    """
    given = {"after": after, "most": most, "per_org": most, "most_steps": MOST_STEPS, "full": full}
    rows = session.execute(_FINISH_IN_TURN, {**given, **kinds.plain()}).all()
    (turn,) = (row for row in rows if row.id is None)
    return Sweep(_released(session, rows), turn.org_id if turn.cut_short or turn.picked >= most else None)


def finish_held(session: Session, kinds: Kinds, lanes: list[ClaimedLane]) -> list[Finished]:
    """The same in lanes that are held, which are given back with it; those of which nothing comes back still are."""
    held = {
        "orgs": [lane.org_id for lane in lanes],
        "keys": [lane.lane_key for lane in lanes],
        "tokens": [lane.token for lane in lanes],
    }
    return _released(session, session.execute(_FINISH_HELD, {**held, **kinds.plain()}).all())


def _released(session: Session, rows: Sequence[Row[Any]]) -> list[Finished]:
    finished = [
        Finished(row.org_id, row.id, row.lane_key, row.provider, row.type, row.attempts, row.received_at)
        for row in rows
        if row.id is not None
    ]
    if finished:
        release_lanes(session, sorted({(one.org_id, one.lane_key) for one in finished}))
    return finished
