"""Beginnings and endings of attempts, of many at once: what threads that deliver side by side write together.

Owns the statements. Each is built once: SQLAlchemy reads a text for its parameters each time it is made. ``end_all``
must follow ``lanes.lock_held`` (or ``lock_all_held``) in the same transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import orjson
from sqlalchemy import text
from sqlalchemy.orm import Session

from app.database.at_once import Asks
from app.models.lanes import IN_LEASE, RELEASE

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
_END = """
    WITH given AS MATERIALIZED (
        SELECT * FROM jsonb_to_recordset(CAST(:endings AS jsonb)) AS g(
            org_id uuid, id bigint, status text, waiting_on text, error_code text, note text, refund smallint,
            delay float8, finished bool, new_lane text) LIMIT :ended
    ), ended AS (
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
    )
    INSERT INTO ledger_entries (org_id, provider, processed, skipped, dead)
    SELECT org_id, provider, count(*) FILTER (WHERE status = 'processed'),
           count(*) FILTER (WHERE status = 'skipped'), count(*) FILTER (WHERE status = 'dead')
    FROM ended WHERE finished GROUP BY org_id, provider
"""

_NEW_LANE = text(
    "INSERT INTO lanes (org_id, lane_key, due_at)"
    " VALUES (:org, :lane, now() + make_interval(secs => :delay)) ON CONFLICT DO NOTHING"
)

_CLOSE = """
    UPDATE delivery_attempts a
    SET ended_at = now(), duration_ms = g.ms, outcome = g.outcome, error_code = g.code, error = g.error
    FROM (
        SELECT * FROM jsonb_to_recordset(CAST(:traces AS jsonb))
            AS g(id bigint, ms int, outcome text, code text, error text) LIMIT :closed
    ) g WHERE a.id = g.id
"""

_END_ALONE = text(_END)
_END_CLOSE_RELEASE = text(f"{_END};{_CLOSE};{RELEASE}")  # one message; each statement sees what the one before did


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
    session.execute(_END_ALONE, {"endings": _endings(endings), "ended": len(endings)})
    _add_lanes(session, endings)


def end_close_and_release(
    session: Session,
    endings: Sequence[tuple[UUID, int, Ending]],
    traces: Sequence[tuple[int, int, Ending]],
    released: Sequence[tuple[UUID, str]],
) -> set[tuple[UUID, str]]:
    """``end_all``; and end the attempts' own rows (id, milliseconds), which are not only those of ``endings``: an
    attempt whose lane was lost did happen. Then give (locked) lanes back, as `lanes.release_lane` does; those in
    which work is due now.
    """
    rows = session.execute(
        _END_CLOSE_RELEASE,
        {
            "endings": _endings(endings),
            "ended": len(endings),
            "closed": len(traces),
            "traces": orjson.dumps(
                [
                    {"id": number, "ms": ms, "outcome": one.outcome, "code": one.error_code, "error": one.error}
                    for number, ms, one in traces
                ]
            ).decode(),
            "orgs": [org_id for org_id, _ in released],
            "keys": [lane_key for _, lane_key in released],
        },
    ).all()
    _add_lanes(session, endings)
    return {(row[0], row[1]) for row in rows if row[2]}


def _endings(endings: Sequence[tuple[UUID, int, Ending]]) -> str:
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
            }
            for org_id, delivery_id, ending in endings
        ]
    ).decode()


def _add_lanes(session: Session, endings: Sequence[tuple[UUID, int, Ending]]) -> None:
    for org_id, _, ending in endings:
        if ending.new_lane is not None:
            session.execute(_NEW_LANE, {"org": org_id, "lane": ending.new_lane, "delay": ending.delay_seconds})
