"""Organizations that send more than their quota: their events are kept, and are last in turn.

Owns ``quota_overruns``. Nothing is refused because of a row here.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, Integer, func, select, text
from sqlalchemy.orm import Mapped, Session, mapped_column

from app.models.base import Base, OrgId
from app.models.deliveries import INTERNAL_PROVIDER


class QuotaOverrun(Base):
    """One organization whose webhooks of the last hour (``accepted``) exceed its quota, until ``until``."""

    __tablename__ = "quota_overruns"

    org_id: Mapped[OrgId] = mapped_column(ForeignKey("organizations.id", ondelete="CASCADE"), primary_key=True)
    accepted: Mapped[int] = mapped_column(Integer)
    quota: Mapped[int] = mapped_column(Integer)
    until: Mapped[datetime]


def count_overruns(session: Session) -> int:
    """How many organizations are over their quota now."""
    statement = select(func.count()).select_from(QuotaOverrun).where(QuotaOverrun.until > func.now())
    return session.execute(statement).scalar_one()


def record_overruns(
    session: Session, *, default_quota: int, near_share: float, lasts_seconds: float
) -> list[tuple[UUID, int, int]]:
    """Write down who is over their quota, for ``lasts_seconds`` from now, and forget whose overrun has ended.

    Counts what the ledger says was accepted in the last 60 minutes, without the house's own work. Returns
    organization, accepted and quota of all who have used at least ``near_share`` of theirs, the most used first.
    """
    rows = session.execute(
        text(
            """
            WITH sent AS MATERIALIZED (
                SELECT org_id, sum(accepted)::int AS accepted FROM ledger_entries
                WHERE at > now() - interval '60 minutes' AND provider <> :own GROUP BY org_id
            ), used AS MATERIALIZED (
                SELECT o.id AS org_id, s.accepted, coalesce(o.webhook_quota_per_hour, :default_quota) AS quota
                FROM sent s JOIN organizations o ON o.id = s.org_id
            ), over AS (
                INSERT INTO quota_overruns (org_id, accepted, quota, until)
                SELECT org_id, accepted, quota, now() + make_interval(secs => :lasts)
                FROM used WHERE accepted > quota ORDER BY org_id
                ON CONFLICT (org_id) DO UPDATE
                SET accepted = excluded.accepted, quota = excluded.quota, until = excluded.until
            ), ended AS (
                DELETE FROM quota_overruns WHERE org_id NOT IN (SELECT org_id FROM used WHERE accepted > quota)
            )
            SELECT org_id, accepted, quota FROM used WHERE accepted >= :share * quota
            ORDER BY accepted::float8 / quota DESC, org_id
            """
        ),
        {
            "own": INTERNAL_PROVIDER,
            "default_quota": default_quota,
            "share": near_share,
            "lasts": lasts_seconds,
        },
    )
    return [(row[0], row[1], row[2]) for row in rows]


def list_overruns(session: Session, *, limit: int) -> list[UUID]:
    """Who is over their quota now, those furthest beyond it first."""
    return list(
        session.scalars(
            select(QuotaOverrun.org_id)
            .where(QuotaOverrun.until > func.now())
            .order_by(QuotaOverrun.accepted.desc(), QuotaOverrun.org_id)
            .limit(limit)
        )
    )
