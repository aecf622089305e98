"""The life of one attempt: begun before its handler starts, ended by whoever still holds the lane.

Owns the changes of a delivery's status between its attempts; what is written of many attempts at once, and each
ending's entry in the ledger, are in ``recorded.py``. Each function is a statement or two inside the caller's
transaction; ``end`` must follow ``lanes.lock_held`` in the same one.
"""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.models.deliveries import UNFINISHED
from app.models.recorded import Beginning, Ending, begin_all, end_all

CREDENTIALS = "credentials:"
WAKE_PER_SECOND = 10.0  # per organization, of what waits for no provider
PARKED = "error_code = 'circuit_open'"  # as against what was tried and failed


def begin(session: Session, *, org_id: UUID, lane_key: str, token: int, delivery_id: int, process: str) -> int | None:
    """Count an attempt and leave its trace; None when the lane is no longer ours or the delivery is finished.

    An earlier attempt without an end is closed as ``lost`` and counted as a crash.
    """
    begun = begin_all(session, [Beginning(org_id, lane_key, token, delivery_id)], process=process)
    return begun.get(delivery_id)


def end(session: Session, ending: Ending, *, org_id: UUID, delivery_id: int) -> None:
    """Write what the attempt came to into the delivery, whose lane the caller has locked, and into the books."""
    end_all(session, [(org_id, delivery_id, ending)])


def close_lost(session: Session, *, org_id: UUID, delivery_id: int) -> None:
    """Close the traces of attempts that nobody will end any more."""
    session.execute(
        text(
            "UPDATE delivery_attempts SET ended_at = now(), outcome = 'lost'"
            " WHERE org_id = :org AND delivery_id = :id AND ended_at IS NULL"
        ),
        {"org": org_id, "id": delivery_id},
    )


def number_of(session: Session, *, org_id: UUID, delivery_id: int) -> int:
    """How many attempts at it have begun."""
    return int(
        session.execute(
            text("SELECT attempts FROM webhook_delivery_log WHERE org_id = :org AND id = :id"),
            {"org": org_id, "id": delivery_id},
        ).scalar()
        or 0
    )


def put_off_suspect(session: Session, *, org_id: UUID, delivery_id: int, delay_seconds: float) -> None:
    """Date the next attempt at a delivery whose last one still has no end, and lets it stay a suspect."""
    session.execute(
        text(
            "UPDATE webhook_delivery_log SET next_attempt_at = now() + make_interval(secs => :delay)"
            " WHERE org_id = :org AND id = :id AND running_since IS NOT NULL"
        ),
        {"delay": delay_seconds, "org": org_id, "id": delivery_id},
    )


def credentials_of(org_id: UUID) -> str:
    """What a delivery waits for when a provider has refused its organization's credentials."""
    return f"{CREDENTIALS}{org_id}"


def resumption_of(org_id: UUID) -> str:
    """What a delivery waits for when its organization is suspended."""
    return f"suspended:{org_id}"


def list_waits(session: Session, prefix: str) -> list[str]:
    """All that unfinished deliveries wait for and that begins so."""
    found = session.execute(
        text(
            "SELECT DISTINCT waiting_on FROM webhook_delivery_log"
            f" WHERE starts_with(waiting_on, :prefix) AND {UNFINISHED}"
        ),
        {"prefix": prefix},
    )
    return [row[0] for row in found]


def wake_waiting(
    session: Session,
    waiting_on: str,
    *,
    per_second: float = WAKE_PER_SECOND,
    after_seconds: float = 0.0,
    only_parked: bool = False,
) -> int:
    """Pull forward what waits for a circuit that has closed (or for `credentials_of`), beginning after
    ``after_seconds`` and spread so that no burst exceeds the rate.

    The rate counts per organization, because that is mostly whose provider account is used (that none is
    used faster is seen to where calls are made). ``only_parked`` leaves those alone that were tried and
    failed. Returns how many.
    Locks the lanes first and in order, as intake does: against deadlocks, and so that whoever is giving
    one of them back reads the new date.
    """
    which = f"waiting_on = :waiting_on AND {UNFINISHED}" + (f" AND {PARKED}" if only_parked else "")
    session.execute(
        text(
            "SELECT FROM lanes l WHERE (l.org_id, l.lane_key) IN (SELECT d.org_id, d.lane_key"
            f" FROM webhook_delivery_log d WHERE {which})"
            " ORDER BY l.org_id, l.lane_key FOR UPDATE"
        ),
        {"waiting_on": waiting_on},
    )
    return len(
        session.execute(
            text(
                f"""
                WITH woken AS (
                    SELECT id, org_id,
                        :after + (row_number() OVER (PARTITION BY org_id ORDER BY id) - 1) / :rate AS wait
                    FROM webhook_delivery_log WHERE {which}
                ), dated AS (
                    UPDATE webhook_delivery_log d
                    SET waiting_on = NULL,
                        next_attempt_at = least(d.next_attempt_at, now() + make_interval(secs => w.wait))
                    FROM woken w WHERE d.id = w.id AND d.org_id = w.org_id AND d.running_since IS NULL
                    RETURNING d.org_id, d.lane_key, d.next_attempt_at
                )
                UPDATE lanes l SET due_at = least(l.due_at, d.next_attempt_at) FROM dated d
                WHERE l.org_id = d.org_id AND l.lane_key = d.lane_key AND l.token IS NULL RETURNING 1
                """
            ),
            {"waiting_on": waiting_on, "rate": float(per_second), "after": after_seconds},
        ).all()
    )


def wake_one(session: Session, circuit: str) -> bool:
    """Pull one delivery forward that waits for the circuit, to probe it; the others keep their dates.

    One that was parked rather than one that has failed, or a delivery that is itself what the provider
    stumbles over would probe for all. Nobody is waited for: a lane that is locked is just being delivered.
    """
    found = session.execute(
        text(
            f"""
            SELECT d.org_id, d.lane_key, d.id FROM webhook_delivery_log d
            JOIN lanes l ON l.org_id = d.org_id AND l.lane_key = d.lane_key AND l.token IS NULL
            WHERE d.waiting_on = :circuit AND d.{UNFINISHED} AND d.running_since IS NULL
            ORDER BY (d.{PARKED}) DESC, d.next_attempt_at, d.id LIMIT 1 FOR UPDATE OF l SKIP LOCKED
            """
        ),
        {"circuit": circuit},
    ).first()
    if found is None:
        return False
    parameters = {"org": found.org_id, "lane": found.lane_key, "id": found.id}
    session.execute(
        text(
            "UPDATE webhook_delivery_log SET next_attempt_at = least(next_attempt_at, now())"
            " WHERE org_id = :org AND id = :id"
        ),
        parameters,
    )
    session.execute(
        text("UPDATE lanes SET due_at = least(due_at, now()) WHERE org_id = :org AND lane_key = :lane"), parameters
    )
    return True


def list_parked(session: Session) -> set[str]:
    """The circuits that unfinished deliveries wait for, without having been tried."""
    found = session.execute(
        text(
            "SELECT DISTINCT waiting_on FROM webhook_delivery_log"
            f" WHERE waiting_on IS NOT NULL AND {PARKED} AND {UNFINISHED}"
        )
    )
    return {row[0] for row in found}


def reopen(session: Session, *, org_id: UUID, delivery_id: int, delay_seconds: float = 0.0) -> bool:
    """Put a finished delivery back to the end of a lane of its own, as new; False when it is not finished.

    It is due after ``delay_seconds``. The books take the ending back that it had.
    """
    found = session.execute(
        text(
            """
            WITH finished AS (
                SELECT id, org_id, provider, status FROM webhook_delivery_log
                WHERE org_id = :org AND id = :id AND status IN ('processed', 'skipped', 'dead') FOR UPDATE
            ), booked AS (
                INSERT INTO ledger_entries (org_id, provider, processed, skipped, dead)
                SELECT org_id, provider, -(status = 'processed')::int, -(status = 'skipped')::int,
                       -(status = 'dead')::int FROM finished
            )
            UPDATE webhook_delivery_log d
            SET status = 'received', lane_key = left(d.lane_key, 150) || ':replay:' || d.id,
                attempts = 0, crashes = 0, running_since = NULL, waiting_on = NULL, held_since = NULL,
                next_attempt_at = now() + make_interval(secs => :delay), finished_at = NULL, error_code = NULL
            FROM finished f WHERE d.org_id = f.org_id AND d.id = f.id RETURNING d.lane_key
            """
        ),
        {"org": org_id, "id": delivery_id, "delay": delay_seconds},
    ).scalar()
    if found is None:
        return False
    session.execute(
        text(  # never updates anything, but locks: a lane of that name may just be ending
            "INSERT INTO lanes (org_id, lane_key, due_at)"
            " VALUES (:org, :lane, now() + make_interval(secs => :delay))"
            " ON CONFLICT (org_id, lane_key) DO UPDATE SET due_at = now() WHERE lanes.due_at IS NULL"
        ),
        {"org": org_id, "lane": found, "delay": delay_seconds},
    )
    return True
