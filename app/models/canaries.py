"""The canaries among the deliveries: when they were planted, and who brought them to an end.

Owns the queries on them, all by the index of their organization. A canary is a delivery like any other;
what its fate means is in ``services/canary.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.models.deliveries import CANARY_ORG_ID, LISTED


@dataclass(frozen=True, slots=True)
class Canary:
    """One canary. ``process``: who attempted it last; None when nobody has yet. Ages are the database clock's."""

    id: int
    event_key: str
    status: str
    planted_at: datetime
    age_seconds: float
    finished_at: datetime | None
    finished_seconds_ago: float | None
    process: str | None


_CANARIES = f"""
SELECT d.id, d.event_key, d.status, d.received_at AS planted_at,
       extract(epoch FROM now() - d.received_at)::float8 AS age_seconds,
       d.finished_at, extract(epoch FROM now() - d.finished_at)::float8 AS finished_seconds_ago,
       (SELECT a.process FROM delivery_attempts a
        WHERE a.org_id = d.org_id AND a.delivery_id = d.id ORDER BY a.id DESC LIMIT 1) AS process
FROM webhook_delivery_log d WHERE d.org_id = :org AND d.{LISTED}
"""


def current_slot(session: Session, *, every_seconds: float) -> int:
    """The number of the present stretch of ``every_seconds``, by the database's clock."""
    slot: int = session.execute(
        text("SELECT floor(extract(epoch FROM now()) / :every)::bigint"), {"every": every_seconds}
    ).scalar_one()
    return slot


def last_planted(session: Session, *, limit: int) -> list[Canary]:
    """The newest, whatever became of them, the newest first."""
    rows = session.execute(text(f"{_CANARIES} ORDER BY d.id DESC LIMIT :limit"), {"org": CANARY_ORG_ID, "limit": limit})
    return [Canary(**row._mapping) for row in rows]


def last_processed(session: Session) -> Canary | None:
    """The newest that came through."""
    row = session.execute(
        text(f"{_CANARIES} AND d.status = 'processed' ORDER BY d.id DESC LIMIT 1"), {"org": CANARY_ORG_ID}
    ).first()
    return Canary(**row._mapping) if row else None


def first_planted_after(session: Session, canary_id: int) -> Canary | None:
    """The oldest of those planted after that one; with 0, the oldest there is."""
    row = session.execute(
        text(f"{_CANARIES} AND d.id > :id ORDER BY d.id LIMIT 1"), {"org": CANARY_ORG_ID, "id": canary_id}
    ).first()
    return Canary(**row._mapping) if row else None
