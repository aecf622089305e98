"""What is finished and old enough to go: each function deletes one small piece of it, in the caller's transaction.

Owns the statements of the cleanup. All conditions on a delivery's end are repeated under its row lock, so
that one which is being replayed meanwhile is never deleted; what somebody else holds locked is left for
the next time. An unfinished delivery has no ``finished_at`` and meets none of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

BEGINNING = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a walk along the dates of ending has come."""

    at: datetime = BEGINNING
    id: int = 0


@dataclass(frozen=True, slots=True)
class Piece:
    """What one piece came to: rows deleted, and where the next begins (None: nothing is left)."""

    deleted: int
    next: Cursor | None


# The next deliveries of some statuses in the order of their ending, as the CTE ``piece``. A walk passes each row once,
# whether or not it deletes anything there, so that no piece looks again at what an earlier one has left.
_PIECE = """
WITH piece AS MATERIALIZED (
    SELECT id, org_id, integration_id, event_key, finished_at FROM webhook_delivery_log
    WHERE finished_at >= :at AND (finished_at, id) > (:at, :id) AND finished_at < now() - make_interval(secs => :age)
      AND status = ANY (CAST(:statuses AS text[]))
    ORDER BY finished_at, id LIMIT :most
)
"""
_END = """
    (SELECT max(finished_at) FROM piece),
    (SELECT id FROM piece ORDER BY finished_at DESC, id DESC LIMIT 1),
    (SELECT count(*) FROM piece)
"""

_KEYS = (
    _PIECE
    + f"""
, gone AS (
    DELETE FROM processed_webhook_events k USING piece p
    WHERE k.digest = event_digest(p.integration_id, p.event_key) RETURNING 1
)
SELECT (SELECT count(*) FROM gone), {_END}
"""
)
# With a delivery go its payload and its attempts (by a trigger), and its dedup key.
_DELIVERIES = (
    _PIECE
    + f"""
, held AS MATERIALIZED (
    SELECT d.id, d.org_id FROM webhook_delivery_log d JOIN piece p USING (id, org_id)
    WHERE d.status = ANY (CAST(:statuses AS text[])) AND d.finished_at < now() - make_interval(secs => :age)
    ORDER BY d.id FOR UPDATE OF d SKIP LOCKED
), gone AS (
    DELETE FROM webhook_delivery_log d USING held h WHERE d.id = h.id AND d.org_id = h.org_id
    RETURNING d.integration_id, d.event_key
), keys AS (
    DELETE FROM processed_webhook_events k USING gone g
    WHERE k.digest = event_digest(g.integration_id, g.event_key)
)
SELECT (SELECT count(*) FROM gone), {_END}
"""
)
_ANSWERS = """
WITH old AS (
    SELECT org_id, call_id, tool_call_id FROM tool_answers
    WHERE started_at < now() - make_interval(secs => :age) ORDER BY started_at LIMIT :most
)
DELETE FROM tool_answers a USING old o
WHERE (a.org_id, a.call_id, a.tool_call_id) = (o.org_id, o.call_id, o.tool_call_id) RETURNING 1
"""
_ALERTS = """
DELETE FROM alerts WHERE key IN (
    SELECT key FROM alerts WHERE ended_at < now() - make_interval(secs => :age) LIMIT :most FOR UPDATE SKIP LOCKED
) RETURNING 1
"""
FINISHED_WELL = ("processed", "skipped")
DEAD = ("dead",)


def delete_keys(session: Session, cursor: Cursor, *, age_seconds: float, most: int) -> Piece:
    """Dedup keys of what ended well more than ``age_seconds`` ago, from ``cursor`` on."""
    values = {**_values(cursor, age_seconds, most), "statuses": list(FINISHED_WELL)}
    return _piece(session.execute(text(_KEYS), values).one(), most)


def delete_deliveries(
    session: Session, cursor: Cursor, *, statuses: tuple[str, ...], age_seconds: float, most: int
) -> Piece:
    """Deliveries that ended as one of ``statuses`` more than ``age_seconds`` ago, and all that hangs on them."""
    values = {**_values(cursor, age_seconds, most), "statuses": list(statuses)}
    return _piece(session.execute(text(_DELIVERIES), values).one(), most)


def delete_answers(session: Session, *, age_seconds: float, most: int) -> int:
    """What was answered to tool calls more than ``age_seconds`` ago."""
    return len(session.execute(text(_ANSWERS), {"age": age_seconds, "most": most}).all())


def delete_alerts(session: Session, *, age_seconds: float, most: int) -> int:
    """Alerts whose cause ended more than ``age_seconds`` ago."""
    return len(session.execute(text(_ALERTS), {"age": age_seconds, "most": most}).all())


def count_expired(
    session: Session, *, keys: float, deliveries: float, dead: float, answers: float, alerts: float
) -> dict[str, int]:
    """How many of each a cleanup would delete now; each argument is an age in seconds. Deletes nothing."""
    row = session.execute(
        text(
            """
            SELECT
                (SELECT count(*) FROM webhook_delivery_log d JOIN processed_webhook_events k
                    ON k.digest = event_digest(d.integration_id, d.event_key)
                 WHERE d.finished_at < now() - make_interval(secs => :keys) AND d.status IN ('processed', 'skipped'))
                AS keys,
                (SELECT count(*) FROM webhook_delivery_log
                 WHERE finished_at < now() - make_interval(secs => :deliveries)
                   AND status IN ('processed', 'skipped')) AS deliveries,
                (SELECT count(*) FROM webhook_delivery_log
                 WHERE finished_at < now() - make_interval(secs => :dead) AND status = 'dead') AS dead,
                (SELECT count(*) FROM tool_answers WHERE started_at < now() - make_interval(secs => :answers))
                AS answers,
                (SELECT count(*) FROM alerts WHERE ended_at < now() - make_interval(secs => :alerts)) AS alerts
            """
        ),
        {"keys": keys, "deliveries": deliveries, "dead": dead, "answers": answers, "alerts": alerts},
    ).one()
    return dict(row._mapping)


def _values(cursor: Cursor, age_seconds: float, most: int) -> dict[str, Any]:
    return {"at": cursor.at, "id": cursor.id, "age": age_seconds, "most": most}


def _piece(row: Any, most: int) -> Piece:
    deleted, last_at, last_id, seen = row
    return Piece(deleted, Cursor(last_at, last_id) if seen == most else None)
