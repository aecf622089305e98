"""Deliveries that no handler is there for, finished many at a time: begun, ended and booked in one commit.

Owns the statements. What a lease is for, the time while a handler runs, does not exist here: the lanes are locked
for the one transaction, and whoever dies in it has begun nothing. Lanes, turns and order are those of ``lanes.py``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import TextClause, text

from app.database.at_once import Asks
from app.models.deliveries import UNFINISHED
from app.models.lanes import (
    ALONG_THE_INDEX,
    EVENTS_PER_CLAIM,
    MOST_STEPS,
    PICKED_HELD,
    PICKED_IN_TURN,
    RELEASE_OF,
    ClaimedLane,
)

# What one statement has done, for the next one of the same message and for who has sent it: a setting of the
# transaction, and in JSON, because an object of Python's for each column of each row took as long as the work itself.
_TOLD = "current_setting('voicedesk.swept', true)::json"

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
        RETURNING d.org_id, d.id, d.lane_key, d.provider, d.type, d.attempts,
            greatest(extract(epoch FROM now() - d.received_at), 0)::float8 AS seconds
    ), traced AS (
        INSERT INTO delivery_attempts
            (org_id, delivery_id, number, lane_token, process, ended_at, duration_ms, outcome)
        SELECT org_id, id, attempts, nextval('lane_tokens'), :process, now(), 0, 'skipped' FROM ended
    ), booked AS (
        INSERT INTO ledger_entries (org_id, provider, skipped)
        SELECT org_id, provider, count(*) FROM ended GROUP BY org_id, provider
    )
    SELECT set_config('voicedesk.swept', json_build_object(
        'finished', (SELECT coalesce(json_agg(e), '[]') FROM ended e), 'last_org', last_org,
        'picked', picked, 'cut_short', cut_short)::text, true)
    FROM (
        SELECT (array_agg(org_id ORDER BY org_id DESC))[1] AS last_org, count(lane_key) AS picked,
               coalesce(bool_or(lane_key IS NULL), false) AS cut_short
        FROM picked
    ) turn
"""
_LANES_TOLD = f"(SELECT DISTINCT * FROM json_to_recordset({_TOLD} -> 'finished') AS e(org_id uuid, lane_key text))"
# Released by a statement of its own: only that sees what came to these lanes before they were locked.
_RELEASE_AND_TELL = f"; {RELEASE_OF.format(locked=_LANES_TOLD)}; SELECT {_TOLD}::text AS told"
_FINISH_IN_TURN = text(ALONG_THE_INDEX + _FINISH.format(picked=PICKED_IN_TURN) + _RELEASE_AND_TELL)
_FINISH_HELD = text(_FINISH.format(picked=PICKED_HELD) + _RELEASE_AND_TELL)


@dataclass(frozen=True, slots=True)
class Finished:
    """One that was finished ``seconds`` after it was stored, after ``attempts`` of which this is the last.

    ``org_id`` as it is told of.
    """

    org_id: str
    id: int
    lane_key: str
    provider: str
    type: str
    attempts: int
    seconds: float


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


def finish_in_turn(asks: Asks, kinds: Kinds, *, after: UUID, most: int, full: list[UUID]) -> Sweep:
    """Finish what waits of them at the beginning of up to ``most`` due lanes that nobody holds.

    Left to the usual way: organizations that are ``full``, suspended, or keep no words. Repeated, it finishes more.
    """
    given = {"after": after, "most": most, "per_org": most, "most_steps": MOST_STEPS, "full": full}
    told = _ask(asks, _FINISH_IN_TURN, {**given, **kinds.plain()})
    is_full = told["cut_short"] or told["picked"] >= most
    return Sweep(_finished(told), UUID(told["last_org"]) if is_full else None)


def finish_held(asks: Asks, kinds: Kinds, lanes: list[ClaimedLane]) -> list[Finished]:
    """The same in lanes that are held, which are given back with it; those of which nothing comes back still are."""
    held = {
        "orgs": [lane.org_id for lane in lanes],
        "keys": [lane.lane_key for lane in lanes],
        "tokens": [lane.token for lane in lanes],
    }
    return _finished(_ask(asks, _FINISH_HELD, {**held, **kinds.plain()}))


def _ask(asks: Asks, message: TextClause, given: Mapping[str, Any]) -> dict[str, Any]:
    (row,) = asks.execute(message, given).all()
    told: dict[str, Any] = orjson.loads(row.told)
    return told


def _finished(told: dict[str, Any]) -> list[Finished]:
    return [Finished(**one) for one in told["finished"]]
