"""Beginnings and endings of attempts, of many at once: what threads that deliver side by side write together.

Owns the statements. Each is built once: SQLAlchemy reads a text for its parameters each time it is made. ``end_all``
must follow ``lanes.lock_held`` in the same transaction; ``end_held`` locks the lanes itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import orjson
from sqlalchemy import text
from sqlalchemy.orm import Session

from app.database.at_once import Asks
from app.models.lanes import IN_LEASE, LOCKED, RELEASED

FINISHED = frozenset({"processed", "skipped", "dead"})


@dataclass(frozen=True, slots=True)
class Ending:
    """What an attempt came to. ``status`` is the delivery's next; ``delay_seconds`` says when, if it is unfinished.

    ``counts`` is False when nothing was really tried (a circuit was open). ``new_lane`` sets the delivery aside.
    ``forgets``: what it said is not to be stored any longer.
    """

    status: str
    outcome: str
    delay_seconds: float = 0.0
    counts: bool = True
    waiting_on: str | None = None
    error_code: str | None = None
    error: str | None = None
    note: str | None = None
    new_lane: str | None = None
    forgets: bool = False

    @property
    def is_last(self) -> bool:
        """Whether the delivery is finished with it."""
        return self.status in FINISHED


@dataclass(frozen=True, slots=True)
class Beginning:
    """An attempt that is about to begin, under the lane's token."""

    org_id: UUID
    lane_key: str
    token: int
    delivery_id: int


@dataclass(frozen=True, slots=True)
class Closing:
    """An attempt that has ended, under the lane's token. ``releases``: the lane is to be given back with it."""

    org_id: UUID
    lane_key: str
    token: int
    delivery_id: int
    attempt_id: int
    duration_ms: int
    ending: Ending
    releases: bool


@dataclass(frozen=True, slots=True)
class Closed:
    """What became of it. ``held``: the lane was still ours; ``more``: it was given back, and work is due in it."""

    held: bool
    more: bool


# By ids and ``finished_at``, as in ``unattended.py``: asked for UNFINISHED, with the statistics of a quiet night all
# that waits was read for each, 9 ms among 5,000; and the lane is no way to find them, it may have a long history.
_BEGIN = text(
    f"""
    WITH given AS MATERIALIZED (
        SELECT g.*, (SELECT {IN_LEASE} FROM lanes l
                     WHERE l.org_id = g.org_id AND l.lane_key = g.lane_key AND l.token = g.token) AS held
        FROM unnest(CAST(:orgs AS uuid[]), CAST(:lanes AS text[]), CAST(:tokens AS bigint[]),
                    CAST(:ids AS bigint[])) AS g(org_id, lane_key, token, id)
    ), lost AS (
        UPDATE delivery_attempts a SET ended_at = now(), outcome = 'lost' FROM given g
        WHERE a.org_id = g.org_id AND a.delivery_id = g.id AND a.ended_at IS NULL
    ), begun AS (
        UPDATE webhook_delivery_log d
        SET status = 'processing', attempts = d.attempts + 1, waiting_on = NULL, running_since = now(),
            crashes = d.crashes + (d.running_since IS NOT NULL)::int
        FROM given g
        WHERE g.held AND d.org_id = g.org_id AND d.id = g.id AND d.finished_at IS NULL
            AND (d.lane_key = g.lane_key) IS TRUE
        RETURNING d.org_id, d.id, d.attempts, g.token
    )
    INSERT INTO delivery_attempts (org_id, delivery_id, number, lane_token, process)
    SELECT org_id, id, attempts, token, :process FROM begun RETURNING delivery_id, id
    """
)

# The limits say how many there are: PostgreSQL takes any JSON for a hundred rows, for which it reads all of a table of
# some ten thousand.
_GIVEN = """
    WITH given AS MATERIALIZED (
        SELECT * FROM jsonb_to_recordset(CAST(:endings AS jsonb)) AS g(
            org_id uuid, id bigint, status text, waiting_on text, error_code text, note text, refund smallint,
            delay float8, finished bool, new_lane text, token bigint) WHERE {which} LIMIT :ended
    )
"""
_END = """, ended AS (
        UPDATE webhook_delivery_log d SET
            status = g.status, running_since = NULL, waiting_on = g.waiting_on,
            error_code = g.error_code, note = coalesce(g.note, d.note),
            attempts = d.attempts - g.refund,
            next_attempt_at = now() + make_interval(secs => g.delay),
            finished_at = CASE WHEN g.finished THEN now() END,
            held_since = CASE WHEN g.finished OR g.new_lane IS NOT NULL THEN NULL
                              ELSE coalesce(d.held_since, now()) END,
            set_aside_at = CASE WHEN g.new_lane IS NOT NULL THEN now() ELSE d.set_aside_at END,
            lane_key = coalesce(g.new_lane, d.lane_key)
        FROM given g WHERE d.org_id = g.org_id AND d.id = g.id AND d.running_since IS NOT NULL
        RETURNING d.org_id, d.provider, g.status, g.finished
    ), aside AS (
        INSERT INTO lanes (org_id, lane_key, due_at)
        SELECT org_id, new_lane, now() + make_interval(secs => delay) FROM given WHERE new_lane IS NOT NULL
        ON CONFLICT DO NOTHING
    )
    INSERT INTO ledger_entries (org_id, provider, processed, skipped, dead)
    SELECT org_id, provider, count(*) FILTER (WHERE status = 'processed'),
           count(*) FILTER (WHERE status = 'skipped'), count(*) FILTER (WHERE status = 'dead')
    FROM ended WHERE finished GROUP BY org_id, provider
"""


_CLOSE = """
    UPDATE delivery_attempts a
    SET ended_at = now(), duration_ms = g.ms, outcome = g.outcome, error_code = g.code, error = g.error
    FROM (
        SELECT * FROM jsonb_to_recordset(CAST(:traces AS jsonb))
            AS g(id bigint, ms int, outcome text, code text, error text) LIMIT :closed
    ) g WHERE a.id = g.id
"""

_END_ALL = text(_GIVEN.format(which="true") + _END)

# One message, and each statement sees what the one before did, and what others committed before that. The tokens of
# the lanes that are still ours, and locked by now, are in a setting of the transaction.
_TOLD = "current_setting('voicedesk.held')"
_HELD = f"(SELECT value::bigint FROM json_array_elements_text({_TOLD}::json))"
_GIVEN_BACK = f"""(
    SELECT org_id, lane_key FROM unnest(
        CAST(:orgs AS uuid[]), CAST(:keys AS text[]), CAST(:tokens AS bigint[]), CAST(:releases AS bool[])
    ) AS r(org_id, lane_key, token, releases) WHERE releases AND token IN {_HELD}
)"""
_END_HELD = text(
    f"""
    WITH locked AS MATERIALIZED ({LOCKED})
    SELECT set_config('voicedesk.held', (SELECT coalesce(json_agg(token), '[]')::text FROM locked), true);
    {_GIVEN.format(which=f"token IN {_HELD}")}{_END};
    {_CLOSE};
    WITH {RELEASED.format(locked=_GIVEN_BACK)}
    SELECT {_TOLD} AS held,
        (SELECT coalesce(json_agg(json_build_array(org_id, lane_key)) FILTER (WHERE is_due), '[]')::text FROM released)
            AS due
    """
)


def begin_all(session: Asks, beginnings: Sequence[Beginning], *, process: str) -> dict[int, int]:
    """Count attempts and leave their traces: each attempt's id, by its delivery's.

    Missing are those whose lane is no longer ours and deliveries that are finished. An earlier attempt without an
    end is closed as ``lost`` and counted as a crash.
    """
    rows = session.execute(
        _BEGIN,
        {
            "orgs": [one.org_id for one in beginnings],
            "lanes": [one.lane_key for one in beginnings],
            "tokens": [one.token for one in beginnings],
            "ids": [one.delivery_id for one in beginnings],
            "process": process,
        },
    ).all()
    return {row[0]: row[1] for row in rows}


def end_all(session: Session, endings: Sequence[tuple[UUID, int, Ending]]) -> None:
    """Write what attempts at deliveries (organization, id) came to, whose lanes the caller has locked, and the books.

    Safe to repeat when it is not known whether the first time was committed: the attempts run no more then.
    """
    given = [(org_id, delivery_id, None, ending) for org_id, delivery_id, ending in endings]
    session.execute(_END_ALL, {"endings": _endings(given), "ended": len(given)})


def end_held(asks: Asks, closings: Sequence[Closing]) -> list[Closed]:
    """``end_all`` where the lane is still ours; and end the attempts' own rows in any case: one whose lane was lost
    did happen. Then give lanes back, as `lanes.release_lane` does. What each came to, in their order.

    Safe to repeat, though what was given back the first time is not held the second.
    """
    endings = [(one.org_id, one.delivery_id, one.token, one.ending) for one in closings]
    (row,) = asks.execute(
        _END_HELD,
        {
            "endings": _endings(endings),
            "ended": len(endings),
            "closed": len(closings),
            "traces": _traces(closings),
            "orgs": [one.org_id for one in closings],
            "keys": [one.lane_key for one in closings],
            "tokens": [one.token for one in closings],
            "releases": [one.releases for one in closings],
        },
    ).all()
    held, due = set(orjson.loads(row.held)), {(org, key) for org, key in orjson.loads(row.due)}
    return [Closed(one.token in held, one.releases and (str(one.org_id), one.lane_key) in due) for one in closings]


def _traces(closings: Sequence[Closing]) -> str:
    return orjson.dumps(
        [
            {
                "id": one.attempt_id,
                "ms": one.duration_ms,
                "outcome": one.ending.outcome,
                "code": one.ending.error_code,
                "error": one.ending.error,
            }
            for one in closings
        ]
    ).decode()


def _endings(endings: Sequence[tuple[UUID, int, int | None, Ending]]) -> str:
    """Each with its delivery, and the token of its lane where that is to be held."""
    return orjson.dumps(
        [
            {
                "org_id": str(org_id),
                "id": delivery_id,
                "status": ending.status,
                "waiting_on": ending.waiting_on,
                "error_code": ending.error_code,
                "note": ending.note,
                "refund": 0 if ending.counts else 1,
                "delay": ending.delay_seconds,
                "finished": ending.is_last,
                "new_lane": ending.new_lane,
                "token": token,
            }
            for org_id, delivery_id, token, ending in endings
        ]
    ).decode()
