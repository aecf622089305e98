"""Webhooks whose proof did not hold: how many, and, encrypted, those that are kept for another look.

Owns ``verification_refusals`` and ``quarantined_webhooks``. Both hang on an integration and only the system
role sees them: what is in them is nobody's until it is proven.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, Identity, Index, Integer, LargeBinary, delete, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from app.models.base import Base, CreatedAt
from app.models.integrations import Integration

KEEP_SECONDS = 7 * 86_400.0


class VerificationRefusal(Base):
    """How often, since its secret or mode was last set, an integration's requests were (or would be) refused."""

    __tablename__ = "verification_refusals"

    integration_id: Mapped[UUID] = mapped_column(ForeignKey("integrations.id", ondelete="CASCADE"), primary_key=True)
    code: Mapped[str] = mapped_column(primary_key=True)
    times: Mapped[int] = mapped_column(BigInteger)
    first_at: Mapped[CreatedAt]
    last_at: Mapped[CreatedAt]


class QuarantinedWebhook(Base):
    """A refused request, whole and encrypted. ``size`` is that of its body."""

    __tablename__ = "quarantined_webhooks"
    __table_args__ = (Index("ix_quarantined_webhooks_integration", "integration_id", "id"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    integration_id: Mapped[UUID] = mapped_column(ForeignKey("integrations.id", ondelete="CASCADE"))
    code: Mapped[str]
    size: Mapped[int] = mapped_column(Integer)
    sealed: Mapped[bytes] = mapped_column(LargeBinary)
    received_at: Mapped[CreatedAt]


@dataclass(frozen=True, slots=True)
class Refused:
    """One integration's refusals with one code."""

    integration_id: UUID
    code: str
    times: int
    last_at: datetime


def count_refusal(session: Session, integration_id: UUID, code: str) -> None:
    """Count one more."""
    row = insert(VerificationRefusal).values(integration_id=integration_id, code=code, times=1)
    session.execute(
        row.on_conflict_do_update(
            index_elements=[VerificationRefusal.integration_id, VerificationRefusal.code],
            set_={"times": VerificationRefusal.times + 1, "last_at": func.now()},
        )
    )


def list_refusals(session: Session, integration_id: UUID | None = None) -> list[Refused]:
    """What was counted, of one integration when it is given."""
    row = VerificationRefusal
    statement = select(row).order_by(row.integration_id, row.code)
    found = session.scalars(statement.where(row.integration_id == integration_id) if integration_id else statement)
    return [Refused(one.integration_id, one.code, one.times, one.last_at) for one in found]


def forget_refusals(session: Session, integration_id: UUID) -> None:
    """Begin to count anew."""
    session.execute(delete(VerificationRefusal).where(VerificationRefusal.integration_id == integration_id))


def keep(
    session: Session,
    integration_id: UUID,
    *,
    code: str,
    sealed: bytes,
    size: int,
    most: int,
    most_bytes: int,
    age_seconds: float,
) -> bool:
    """Keep a refused request, unless ``most`` or ``most_bytes`` are kept already; what is older than that age goes.

    One at a time for each integration, so that no burst passes the bounds.
    """
    session.execute(text("SELECT 1 FROM integrations WHERE id = :id FOR UPDATE"), {"id": integration_id})
    delete_older(session, age_seconds=age_seconds, integration_id=integration_id)
    row = QuarantinedWebhook
    mine = select(func.count(), func.coalesce(func.sum(row.size), 0)).where(row.integration_id == integration_id)
    count, total = session.execute(mine).one()
    if count >= most or total + size > most_bytes:
        return False
    session.execute(insert(row).values(integration_id=integration_id, code=code, sealed=sealed, size=size))
    return True


def delete_older(session: Session, *, age_seconds: float, integration_id: UUID | None = None) -> int:
    """Delete what has been kept for longer."""
    row = QuarantinedWebhook
    gone = delete(row).where(row.received_at < func.now() - func.make_interval(0, 0, 0, 0, 0, 0, age_seconds))
    if integration_id is not None:
        gone = gone.where(row.integration_id == integration_id)
    return len(session.execute(gone.returning(row.id)).all())


def list_kept(
    session: Session, *, integration_id: UUID | None = None, after: int = 0, limit: int
) -> list[QuarantinedWebhook]:
    """The next that are kept, the oldest first."""
    row = QuarantinedWebhook
    statement = select(row).where(row.id > after).order_by(row.id).limit(limit)
    return list(session.scalars(statement.where(row.integration_id == integration_id) if integration_id else statement))


def list_kept_of(session: Session, *, org_id: UUID | None, after: int, limit: int) -> list[QuarantinedWebhook]:
    """The next that are kept, of one organization's integrations when it is given, the oldest first."""
    row = QuarantinedWebhook
    statement = select(row).where(row.id > after).order_by(row.id).limit(limit)
    if org_id is not None:
        mine = select(Integration.id).where(Integration.org_id == org_id)
        statement = statement.where(row.integration_id.in_(mine))
    return list(session.scalars(statement))


def count_kept(session: Session) -> dict[UUID, int]:
    """How many are kept, by integration."""
    row = QuarantinedWebhook
    return {
        one[0]: one[1] for one in session.execute(select(row.integration_id, func.count()).group_by(row.integration_id))
    }


def release(session: Session, webhook_id: int) -> None:
    """It has been taken in."""
    session.execute(delete(QuarantinedWebhook).where(QuarantinedWebhook.id == webhook_id))


def replace_sealed_request(session: Session, webhook_id: int, *, sealed: bytes) -> None:
    """The same request under another key."""
    session.execute(update(QuarantinedWebhook).where(QuarantinedWebhook.id == webhook_id).values(sealed=sealed))
