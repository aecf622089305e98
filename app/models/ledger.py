"""The ledger: what was accepted on one side, what became of it on the other, counted independently.

Owns ``ledger_entries``, which are only ever added to: intake writes how many it accepted, endings write
what they ended as, and cleanup deletes deliveries without touching it. So ``accepted = processed + dead +
skipped + erased + waiting`` (the rows that are unfinished now) can fail, and says so when it does.
Entries keep their moment for an hour, for quotas; after that they are carried into one row an
organization and provider.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import BigInteger, Identity, Index, Integer, text
from sqlalchemy.orm import Mapped, Session, mapped_column

from app.models.base import Base, CreatedAt, OrgId
from app.models.deliveries import UNFINISHED

ROLL_UP_LOCK = 0x1ED6E2  # of a transaction's advisory lock: its own number within this database
# The date of rows that carry the sums of what is older than an hour. Not a moment: it keeps them apart.
_CARRIED = "TIMESTAMPTZ 'epoch'"


class LedgerEntry(Base):
    """A change of the sums of one organization and provider; negative where a replay takes an ending back."""

    __tablename__ = "ledger_entries"
    __table_args__ = (Index("ix_ledger_entries_at", "at"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    org_id: Mapped[OrgId]
    provider: Mapped[str]
    accepted: Mapped[int] = mapped_column(Integer, server_default="0")
    processed: Mapped[int] = mapped_column(Integer, server_default="0")
    dead: Mapped[int] = mapped_column(Integer, server_default="0")
    skipped: Mapped[int] = mapped_column(Integer, server_default="0")
    erased: Mapped[int] = mapped_column(Integer, server_default="0")
    at: Mapped[CreatedAt]


@dataclass(frozen=True, slots=True)
class Balance:
    """Both sides of the books at one moment, over all organizations and providers."""

    accepted: int
    processed: int
    dead: int
    skipped: int
    erased: int
    waiting: int

    @property
    def difference(self) -> int:
        """How many accepted events nobody can account for; negative: more came to an end than came in."""
        return self.accepted - (self.processed + self.dead + self.skipped + self.erased + self.waiting)


def balance(session: Session) -> Balance:
    """Add up both sides. One statement, and so one snapshot, whatever is committed meanwhile."""
    row = session.execute(
        text(
            f"""
            SELECT coalesce(sum(accepted), 0)::bigint, coalesce(sum(processed), 0)::bigint,
                   coalesce(sum(dead), 0)::bigint, coalesce(sum(skipped), 0)::bigint,
                   coalesce(sum(erased), 0)::bigint,
                   (SELECT count(*) FROM webhook_delivery_log WHERE {UNFINISHED})
            FROM ledger_entries
            """
        )
    ).one()
    return Balance(*row)


def unbalanced(session: Session, *, limit: int = 20) -> list[tuple[UUID, int]]:
    """The organizations whose own books do not balance, with their difference, the largest first."""
    rows = session.execute(
        text(
            f"""
            SELECT org_id, sum(n)::bigint FROM (
                SELECT org_id, sum(accepted - processed - dead - skipped - erased) AS n
                FROM ledger_entries GROUP BY org_id
                UNION ALL
                SELECT org_id, -count(*) FROM webhook_delivery_log WHERE {UNFINISHED} GROUP BY org_id
            ) sides GROUP BY org_id HAVING sum(n) <> 0 ORDER BY abs(sum(n)) DESC, org_id LIMIT :limit
            """
        ),
        {"limit": limit},
    )
    return [(row[0], row[1]) for row in rows]


def carry_forward(session: Session, *, most: int) -> int | None:
    """Merge up to ``most`` entries older than an hour into their organization's and provider's one row.

    Returns how many were merged; None when another process is at it. One statement: a crash leaves the
    sums as they were, and so does an error.
    """
    if not session.execute(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": ROLL_UP_LOCK}).scalar():
        return None
    merged: int = session.execute(
        text(
            f"""
            WITH old AS MATERIALIZED (
                SELECT id, org_id, provider FROM ledger_entries
                WHERE at > {_CARRIED} AND at < now() - interval '1 hour' ORDER BY at LIMIT :most
            ), carried AS (
                SELECT c.id FROM ledger_entries c WHERE c.at = {_CARRIED}
                  AND (c.org_id, c.provider) IN (SELECT org_id, provider FROM old)
            ), gone AS (
                DELETE FROM ledger_entries WHERE id IN (SELECT id FROM old UNION ALL SELECT id FROM carried)
                RETURNING org_id, provider, accepted, processed, dead, skipped, erased
            ), merged AS (
                INSERT INTO ledger_entries (org_id, provider, accepted, processed, dead, skipped, erased, at)
                SELECT org_id, provider, sum(accepted), sum(processed), sum(dead), sum(skipped), sum(erased), {_CARRIED}
                FROM gone GROUP BY org_id, provider
            )
            SELECT count(*) FROM old
            """
        ),
        {"most": most},
    ).scalar_one()
    return merged
