"""By what a platform integration's events are told apart: each key belongs to one organization.

Owns ``routing_keys`` and the moving of events from nobody to their owner. What keys an event has is its
provider's business; which of them count is ``services/routing.py``'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ForeignKey, Index, delete, select, text, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from app.models.base import Base, OrgId
from app.models.deliveries import UNFINISHED, UNOWNED, UNOWNED_ORG_ID

Key = tuple[str, str]


class RoutingKey(Base):
    """One value that names an organization: an assistant, a number, an account, a Messaging Service."""

    __tablename__ = "routing_keys"
    __table_args__ = (Index("ix_routing_keys_org", "org_id"),)

    kind: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str] = mapped_column(primary_key=True)
    org_id: Mapped[OrgId] = mapped_column(ForeignKey("organizations.id", ondelete="CASCADE"))


class UnownedEvent(NamedTuple):
    """An event that waits for its owner."""

    id: int
    provider: str
    type: str
    body: dict[str, Any] | None


def find_owners(session: Session, keys: Sequence[Key]) -> set[UUID]:
    """The organizations that any of the keys names."""
    named = tuple_(RoutingKey.kind, RoutingKey.value).in_(list(keys))
    return set(session.scalars(select(RoutingKey.org_id).where(named))) if keys else set()


def keys_of(session: Session, org_id: UUID) -> dict[str, str]:
    """An organization's keys by kind."""
    rows = session.execute(select(RoutingKey.kind, RoutingKey.value).where(RoutingKey.org_id == org_id))
    return {row.kind: row.value for row in rows}


def list_keys(session: Session, *, limit: int) -> list[tuple[Key, UUID]]:
    """All keys with whose they are."""
    return [((row.kind, row.value), row.org_id) for row in session.scalars(select(RoutingKey).limit(limit))]


def claim(session: Session, org_id: UUID, kind: str, value: str | None) -> UUID | None:
    """Give the organization this key instead of its present one of that kind (None: take it away).

    Returns the other organization that has it already; then nothing is changed.
    """
    if value is not None:
        row = insert(RoutingKey).values(kind=kind, value=value, org_id=org_id)
        session.execute(row.on_conflict_do_nothing())
        owner = session.scalar(select(RoutingKey.org_id).where(RoutingKey.kind == kind, RoutingKey.value == value))
        if owner != org_id:
            return owner
    others = delete(RoutingKey).where(RoutingKey.org_id == org_id, RoutingKey.kind == kind)
    session.execute(others if value is None else others.where(RoutingKey.value != value))
    return None


def release_all(session: Session, org_id: UUID) -> None:
    """Take all keys away from the organization."""
    session.execute(delete(RoutingKey).where(RoutingKey.org_id == org_id))


def list_unowned(
    session: Session, *, after: int = 0, limit: int, within: timedelta | None = None
) -> list[UnownedEvent]:
    """The next events that wait for their owner, the oldest first; only those of the last ``within``."""
    rows = session.execute(
        text(
            "SELECT d.id, d.provider, d.type, p.body FROM webhook_delivery_log d LEFT JOIN webhook_payloads p"
            " ON p.delivery_id = d.id AND p.org_id = d.org_id"
            f" WHERE d.org_id = :org AND d.id > :after AND d.{UNFINISHED}"
            " AND (CAST(:within AS interval) IS NULL OR d.received_at > now() - CAST(:within AS interval))"
            " ORDER BY d.id LIMIT :limit"
        ),
        {"org": UNOWNED_ORG_ID, "after": after, "limit": limit, "within": within},
    )
    return [UnownedEvent(*row) for row in rows]


def count_unowned(session: Session) -> list[tuple[str, int, datetime, list[int]]]:
    """What waits for its owner, by provider: how many, since when, the first ids."""
    rows = session.execute(
        text(
            "SELECT provider, count(*), min(received_at), (array_agg(id ORDER BY id))[1:5] FROM webhook_delivery_log"
            f" WHERE org_id = :org AND {UNFINISHED} GROUP BY provider ORDER BY provider"
        ),
        {"org": UNOWNED_ORG_ID},
    )
    return [(row[0], row[1], row[2], list(row[3])) for row in rows]


def assign(session: Session, event_id: int, org_id: UUID) -> bool:
    """Move one waiting event to its owner, with a lane, its key and both sides of the books; False if it is gone.

    The lane first, as intake does it. The row keeps its id, and so its place before what came later.
    """
    lane = session.execute(
        text(f"SELECT lane_key FROM webhook_delivery_log WHERE id = :id AND org_id = :nobody AND {UNFINISHED}"),
        {"id": event_id, "nobody": UNOWNED_ORG_ID},
    ).scalar()
    if lane is None:
        return False
    session.execute(
        text(
            "INSERT INTO lanes (org_id, lane_key, due_at) VALUES (:org, :lane, now())"
            " ON CONFLICT (org_id, lane_key) DO UPDATE SET due_at = least(lanes.due_at, now())"
            " WHERE lanes.token IS NULL"
        ),
        {"org": org_id, "lane": lane},
    )
    moved = session.execute(
        text(
            f"""
            WITH taken AS (
                UPDATE webhook_delivery_log
                SET org_id = :org, next_attempt_at = now(), error_code = NULL, note = 'it had no owner at first'
                WHERE id = :id AND org_id = :nobody AND {UNFINISHED}
                RETURNING id, provider, integration_id, event_key
            ), said AS (
                UPDATE webhook_payloads p SET org_id = :org FROM taken t
                WHERE p.delivery_id = t.id AND p.org_id = :nobody
            ), keyed AS (
                UPDATE processed_webhook_events k SET org_id = :org FROM taken t
                WHERE k.digest = event_digest(t.integration_id, t.event_key)
            ), booked AS (
                INSERT INTO ledger_entries (org_id, provider, accepted)
                SELECT :org, provider, 1 FROM taken UNION ALL SELECT :nobody, provider, -1 FROM taken
            )
            SELECT id FROM taken
            """
        ),
        {"id": event_id, "org": org_id, "nobody": UNOWNED_ORG_ID},
    ).scalar()
    return moved is not None


def record_consent(session: Session, org_id: UUID, address: str, *, opted_out: bool, event_id: int) -> None:
    """What STOP or START said when it came in, unless the address has said something since."""
    session.execute(
        text(
            "INSERT INTO opt_outs (org_id, address, opted_out, source, changed_at)"
            " SELECT :org, :address, :opted_out, 'message', received_at FROM webhook_delivery_log WHERE id = :id"
            " ON CONFLICT (org_id, address) DO UPDATE"
            " SET opted_out = excluded.opted_out, source = excluded.source, changed_at = excluded.changed_at"
            " WHERE opt_outs.changed_at < excluded.changed_at"
        ),
        {"org": org_id, "address": address, "opted_out": opted_out, "id": event_id},
    )


def bury_unowned(session: Session, *, age_seconds: float, most: int) -> int:
    """End what has waited for its owner for so long: dead, kept as long as the dead are, and in the books."""
    return len(
        session.execute(
            text(
                f"""
                WITH old AS (
                    SELECT id FROM webhook_delivery_log WHERE org_id = :org AND {UNFINISHED}
                    AND received_at < now() - make_interval(secs => :age) ORDER BY id LIMIT :most FOR UPDATE SKIP LOCKED
                ), ended AS (
                    UPDATE webhook_delivery_log d SET status = 'dead', finished_at = now(), error_code = :code
                    FROM old WHERE d.id = old.id AND d.org_id = :org RETURNING d.provider
                ), booked AS (
                    INSERT INTO ledger_entries (org_id, provider, dead)
                    SELECT :org, provider, count(*) FROM ended GROUP BY provider
                )
                SELECT 1 FROM ended
                """
            ),
            {"org": UNOWNED_ORG_ID, "age": age_seconds, "most": most, "code": UNOWNED},
        ).all()
    )
