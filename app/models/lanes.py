"""Lanes that have work: the small table that claims go over, and the statements that claim and finish.

Owns the order of turns (between organizations) and of events (within a lane). A lane row exists only
while the lane has unfinished deliveries; ``due_at`` is both its date and, while claimed, the end of
the lease: an expired lease is simply due again. ``token`` fences: it comes from a sequence and never
repeats, and whoever holds an older one has lost the lane.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Index, Sequence, text
from sqlalchemy.orm import Mapped, Session, mapped_column

from app.database.at_once import Asks
from app.models.base import Base, OrgId
from app.models.deliveries import UNFINISHED

FIRST_ORG = UUID(int=0)
MOST_STEPS = 750  # organizations looked at in one claim (5 ms); it goes on from there in the next
EVENTS_PER_CLAIM = 5
FEW = 200  # due lanes that a claim looks at before it walks

lane_tokens = Sequence("lane_tokens", metadata=Base.metadata, data_type=BigInteger)


class Lane(Base):
    """One call, conversation or calendar of one organization that has something to be done."""

    __tablename__ = "lanes"
    __table_args__ = (
        # Partial, so that only a statement that asks for a date can use it: with the statistics of an empty table it
        # would look as good as the primary key to one that asks for a lane, and read all of the organization's.
        Index("ix_lanes_turn", "org_id", "due_at", postgresql_where=text("due_at IS NOT NULL")),
        Index("ix_lanes_due", "due_at", postgresql_where=text("due_at IS NOT NULL")),
        {"postgresql_with": {"fillfactor": 70}},
    )

    org_id: Mapped[OrgId] = mapped_column(primary_key=True)
    lane_key: Mapped[str] = mapped_column(primary_key=True)
    due_at: Mapped[datetime]
    token: Mapped[int | None] = mapped_column(BigInteger)


@dataclass(frozen=True, slots=True)
class QueuedDelivery:
    """A delivery as its handler needs it.

    ``running_since`` set: its last attempt began and never ended. ``due`` and ``held_seconds`` (how long
    it has kept others waiting) are by the database's clock, as all dates are.
    """

    id: int
    org_id: UUID
    integration_id: UUID | None
    provider: str
    type: str
    event_key: str
    attempts: int
    crashes: int
    received_at: datetime
    occurred_at: datetime | None
    running_since: datetime | None
    due: bool
    held_seconds: float
    body: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class ClaimedLane:
    """A lane that is ours until its lease ends, with its first deliveries in order.

    ``attempt_id`` set: an attempt at the first of them has begun.
    """

    org_id: UUID
    lane_key: str
    token: int
    deliveries: tuple[QueuedDelivery, ...]
    attempt_id: int | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """What one claim brought. ``next_org``: where the next turn begins; None when the round is complete."""

    lanes: list[ClaimedLane]
    next_org: UUID | None


# The first deliveries of a lane ``c``, in order, as ``d``; a lane without any still comes, with NULLs.
_FIRST_DELIVERIES = f"""LEFT JOIN LATERAL (
    SELECT d.id, d.integration_id, d.provider, d.type, d.event_key, d.attempts, d.crashes, d.received_at,
           d.occurred_at, d.running_since, d.next_attempt_at <= now() AS due,
           coalesce(extract(epoch FROM now() - d.held_since), 0)::float8 AS held_seconds, p.body
    FROM webhook_delivery_log d LEFT JOIN webhook_payloads p ON p.delivery_id = d.id AND p.org_id = d.org_id
    WHERE d.org_id = c.org_id AND d.lane_key = c.lane_key AND d.{UNFINISHED} ORDER BY d.id LIMIT {EVENTS_PER_CLAIM}
) d ON true"""

# While few lanes are due, their organizations are a turn, whoever else has dates to come. Else it walks: one step per
# organization by index, never per lane; the walk stops as soon as enough lanes are locked.
_DUE = f"due AS MATERIALIZED (SELECT org_id FROM lanes WHERE due_at <= now() ORDER BY due_at LIMIT {FEW})"
_WALK = f"""
    (
        (SELECT DISTINCT org_id, :most_steps + 1 AS step FROM due
         WHERE org_id > :after AND (SELECT count(*) FROM due) < {FEW} ORDER BY org_id)
        UNION ALL
        (SELECT org_id, 1 FROM lanes
         WHERE org_id > :after AND (SELECT count(*) FROM due) = {FEW} ORDER BY org_id LIMIT 1)
    )
    UNION ALL
    SELECT (SELECT l.org_id FROM lanes l WHERE l.org_id > t.org_id ORDER BY l.org_id LIMIT 1), t.step + 1
    FROM turn t WHERE t.org_id IS NOT NULL AND t.step < :most_steps
"""
_LISTED = "SELECT org_id, 0 AS step FROM unnest(CAST(:only AS uuid[])) org_id"

# Before a statement with such a walk. PostgreSQL cannot know how few lanes are wanted: it would read and sort all of an
# organization that are due, and, forbidden that, all deliveries to find those of a few ids.
ALONG_THE_INDEX = "SET LOCAL enable_bitmapscan = off; SET LOCAL enable_seqscan = off; "

# The lanes of a turn, locked, as ``picked``; where the walk was cut short, the organization it came to, with a NULL.
_PICKED = """
turn AS ({turn}), picked AS MATERIALIZED (
    SELECT p.org_id, p.lane_key, p.place FROM turn t CROSS JOIN LATERAL (
        SELECT * FROM (
            SELECT l.org_id, l.lane_key, l.ctid AS place FROM lanes l
            WHERE l.org_id = t.org_id AND l.due_at <= now() AND t.org_id <> ALL (CAST(:full AS uuid[]))
            ORDER BY l.due_at LIMIT :per_org FOR UPDATE SKIP LOCKED
        ) due
        UNION ALL
        SELECT t.org_id, NULL, NULL WHERE t.step = :most_steps
    ) p
    WHERE t.org_id IS NOT NULL LIMIT :most
)
"""
PICKED_IN_TURN = f"{_DUE}, {_PICKED.format(turn=_WALK)}"
# Those of the lanes that are still ours, locked one after the other in the order in which everybody locks lanes.
LOCKED = """
SELECT l.org_id, l.lane_key, l.token FROM (
    SELECT * FROM unnest(CAST(:orgs AS uuid[]), CAST(:keys AS text[]), CAST(:tokens AS bigint[]))
        AS g(org_id, lane_key, token) ORDER BY org_id, lane_key
) h CROSS JOIN LATERAL (
    SELECT * FROM lanes l WHERE l.org_id = h.org_id AND l.lane_key = h.lane_key AND l.token = h.token FOR UPDATE
) l
"""
PICKED_HELD = f"picked AS MATERIALIZED ({LOCKED})"
# By places, as RELEASED says why. One that was changed between this statement's snapshot and its lock is left out;
# it is due, and the next claim finds it.
_CLAIM = f"""
WITH RECURSIVE {{picked}}, claimed AS (
    UPDATE lanes l SET due_at = now() + make_interval(secs => :lease), token = nextval('lane_tokens')
    WHERE l.ctid = ANY (ARRAY(SELECT place FROM picked))
    RETURNING l.org_id, l.lane_key, l.token
)
SELECT c.org_id, c.lane_key, c.token, d.* FROM claimed c {_FIRST_DELIVERIES}
UNION ALL
SELECT p.org_id, NULL, NULL, {", ".join(["NULL"] * 13)} FROM picked p WHERE p.lane_key IS NULL
"""

_CLAIM_IN_TURN = text(ALONG_THE_INDEX + _CLAIM.format(picked=PICKED_IN_TURN))
_CLAIM_LISTED = text(ALONG_THE_INDEX + _CLAIM.format(picked=_PICKED.format(turn=_LISTED)))

_HELD = text(
    f"""
    SELECT c.org_id, c.lane_key, c.token, d.* FROM lanes c {_FIRST_DELIVERIES}
    WHERE c.org_id = :org AND c.lane_key = :key AND c.token = :token AND c.due_at > now()
    """
)

# Asked of a lane that was found by its key, and not beside the key: the index of turns could be read for the date.
IN_LEASE = "due_at > now()"
_IS_HELD = text(f"SELECT {IN_LEASE} AS held FROM lanes WHERE org_id = :org AND lane_key = :key AND token = :token")

_LOCK_HELD = text(LOCKED)

# By places in the table, each looked up for itself: this table is empty at one moment and has thousands of rows at the
# next, and a join planned by the statistics of the first compares all with all at the second (5 s for 25,000 lanes).
# The rows are locked, so they stay where they are.
RELEASED = f"""
    head AS MATERIALIZED (
        SELECT (SELECT l.ctid FROM lanes l WHERE l.org_id = g.org_id AND l.lane_key = g.lane_key) AS place,
               d.next_attempt_at
        FROM {{locked}} AS g(org_id, lane_key) LEFT JOIN LATERAL (
            SELECT next_attempt_at FROM webhook_delivery_log d
            WHERE d.org_id = g.org_id AND d.lane_key = g.lane_key AND d.{UNFINISHED} ORDER BY d.id LIMIT 1
        ) d ON true
    ), gone AS (
        DELETE FROM lanes WHERE ctid = ANY (ARRAY(SELECT place FROM head WHERE next_attempt_at IS NULL))
    ), released AS (
        UPDATE lanes l SET due_at = (SELECT h.next_attempt_at FROM head h WHERE h.place = l.ctid), token = NULL
        WHERE l.ctid = ANY (ARRAY(SELECT place FROM head WHERE next_attempt_at IS NOT NULL))
        RETURNING l.org_id, l.lane_key, l.due_at <= now() AS is_due
    )
"""
RELEASE_OF = f"WITH {RELEASED} SELECT * FROM released"
_RELEASE = text(RELEASE_OF.format(locked="unnest(CAST(:orgs AS uuid[]), CAST(:keys AS text[]))"))


def claim_lanes(
    session: Asks,
    *,
    after: UUID,
    most: int,
    per_org: int,
    lease_seconds: float,
    full: list[UUID],
    only: list[UUID] | None = None,
) -> Claim:
    """Take up to ``most`` due lanes, at most ``per_org`` of each organization, those after ``after`` first.

    ``full`` are organizations that are not to get a turn. With ``only`` these get one, in that order, and
    nobody else. Nobody else is waited for. Repeated, it claims more: what nobody was told of comes back with its lease.
    """
    rows = session.execute(
        _CLAIM_IN_TURN if only is None else _CLAIM_LISTED,
        {
            **({"after": after} if only is None else {"only": only}),
            "most": most,
            "per_org": per_org,
            "lease": lease_seconds,
            "full": full,
            "most_steps": MOST_STEPS,
        },
    ).all()
    lanes: dict[tuple[UUID, str], list[QueuedDelivery]] = {}
    tokens: dict[tuple[UUID, str], int] = {}
    stopped_at: UUID | None = None
    for row in rows:
        if row.lane_key is None:
            stopped_at = row.org_id
            continue
        key = (row.org_id, row.lane_key)
        tokens[key] = row.token
        found = lanes.setdefault(key, [])
        if row.id is not None:
            found.append(_queued(row))
    claimed = [
        ClaimedLane(org_id, lane_key, tokens[org_id, lane_key], tuple(sorted(found, key=lambda d: d.id)))
        for (org_id, lane_key), found in lanes.items()
    ]
    if len(claimed) >= most:
        stopped_at = max(lane.org_id for lane in claimed)
    return Claim(claimed, stopped_at)


def read_held(session: Session, org_id: UUID, lane_key: str, token: int) -> ClaimedLane | None:
    """A lane that another process claimed under ``token``, as it stands; None when the lease has passed on."""
    rows = session.execute(_HELD, {"org": org_id, "key": lane_key, "token": token}).all()
    if not rows:
        return None
    return ClaimedLane(org_id, lane_key, token, tuple(_queued(row) for row in rows if row.id is not None))


def _queued(row: Any) -> QueuedDelivery:
    return QueuedDelivery(**{name: getattr(row, name) for name in QueuedDelivery.__slots__})


def renew_leases(session: Session, held: list[tuple[UUID, str, int]], *, lease_seconds: float) -> set[int]:
    """Push the leases of the lanes still ours; return the tokens that are."""
    rows = session.execute(
        text(
            "UPDATE lanes l SET due_at = now() + make_interval(secs => :lease)"
            " FROM unnest(CAST(:orgs AS uuid[]), CAST(:keys AS text[]), CAST(:tokens AS bigint[]))"
            " AS h(org_id, lane_key, token)"
            " WHERE l.org_id = h.org_id AND l.lane_key = h.lane_key AND l.token = h.token RETURNING l.token"
        ),
        {"lease": lease_seconds, **_as_arrays(held)},
    )
    return {row[0] for row in rows}


def give_back_lanes(session: Session, held: list[tuple[UUID, str, int]]) -> int:
    """Make the lanes that are still ours due now and nobody's; how many. For a process that leaves in the middle."""
    rows = session.execute(
        text(
            "UPDATE lanes l SET due_at = now(), token = NULL"
            " FROM unnest(CAST(:orgs AS uuid[]), CAST(:keys AS text[]), CAST(:tokens AS bigint[]))"
            " AS h(org_id, lane_key, token)"
            " WHERE l.org_id = h.org_id AND l.lane_key = h.lane_key AND l.token = h.token RETURNING 1"
        ),
        _as_arrays(held),
    )
    return len(rows.all())


def is_held(session: Session, org_id: UUID, lane_key: str, token: int) -> bool:
    """Whether the lane is still ours and its lease has not ended."""
    return bool(session.execute(_IS_HELD, {"org": org_id, "key": lane_key, "token": token}).scalar())


def lock_held(session: Session, org_id: UUID, lane_key: str, token: int) -> bool:
    """Lock the lane if it is still ours. What follows must be new statements: only their snapshot
    sees what intake committed while we waited for the lock."""
    return bool(lock_all_held(session, [(org_id, lane_key, token)]))


def lock_all_held(session: Session, held: list[tuple[UUID, str, int]]) -> set[int]:
    """Lock those of the lanes that are still ours, in the order in which everybody locks lanes; their tokens."""
    return {row.token for row in session.execute(_LOCK_HELD, _as_arrays(held))}


def release_lane(session: Session, org_id: UUID, lane_key: str) -> bool:
    """Give the (locked) lane its next head's date, or delete it when nothing is left; True if work is due now."""
    return any(row.is_due for row in session.execute(_RELEASE, {"orgs": [org_id], "keys": [lane_key]}))


def _as_arrays(held: list[tuple[UUID, str, int]]) -> dict[str, Any]:
    return {
        "orgs": [org_id for org_id, _, _ in held],
        "keys": [lane_key for _, lane_key, _ in held],
        "tokens": [token for _, _, token in held],
    }


def end_impossible_leases(session: Session, *, lease_seconds: float) -> None:
    """Make leases due that end later than any lease can: the server's clock was set back since they began."""
    session.execute(
        text(
            "UPDATE lanes SET due_at = now() WHERE token IS NOT NULL"
            " AND due_at > now() + make_interval(secs => 2 * CAST(:lease AS float8))"
        ),
        {"lease": lease_seconds},
    )


def oldest_within_quota(session: Session) -> float:
    """For how many seconds the longest-waiting lane has been due, of organizations that are not over their quota."""
    waited: float | None = session.execute(
        text(
            "SELECT extract(epoch FROM now() - min(due_at))::float8 FROM lanes WHERE due_at <= now()"
            " AND org_id NOT IN (SELECT org_id FROM quota_overruns WHERE until > now())"
        )
    ).scalar()
    return waited or 0.0


def next_due(session: Session) -> tuple[bool, float]:
    """Whether any lane is due now, and for how many seconds the longest-waiting one has been."""
    waited = session.execute(
        text("SELECT extract(epoch FROM now() - min(due_at))::float8 FROM lanes WHERE due_at <= now()")
    ).scalar()
    return waited is not None, waited or 0.0
