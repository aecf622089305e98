"""What an organization uses (calls, minutes, texts, cost), and the monthly limits that somebody set it.

Owns ``usage_limits`` and the sums over calls and texts. When a month begins is the caller's to know.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Numeric, delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from app.models.base import Base, OrgId
from app.models.calls import Call
from app.models.messages import Message


class UsageLimit(Base):
    """How much of one kind (``cost`` in US dollars, ``minutes``, ``texts``) is expected in a month at most."""

    __tablename__ = "usage_limits"
    __table_args__ = (
        CheckConstraint("kind IN ('cost', 'minutes', 'texts')", name="kind"),
        CheckConstraint("most > 0", name="most"),
    )

    org_id: Mapped[OrgId] = mapped_column(ForeignKey("organizations.id", ondelete="CASCADE"), primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    most: Mapped[Decimal] = mapped_column(Numeric(12, 2))


@dataclass(frozen=True, slots=True)
class CallSums:
    """Calls of a stretch of time: how many, how long in seconds, and what Vapi charged for them in US dollars."""

    calls: int = 0
    seconds: Decimal = Decimal(0)
    cost: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class TextSums:
    """Texts of a stretch of time: those that Twilio took from us, and those that came in."""

    sent: int = 0
    received: int = 0


def sum_calls(session: Session, org_ids: Collection[UUID], *, start: datetime, end: datetime) -> dict[UUID, CallSums]:
    """The calls that began (as far as we heard) between ``start`` and ``end``, by organization; none: left out."""
    rows = session.execute(
        select(Call.org_id, func.count(), func.sum(Call.duration_seconds), func.sum(Call.cost))
        .where(Call.org_id.in_(org_ids), Call.created_at >= start, Call.created_at < end)
        .group_by(Call.org_id)
    )
    return {row[0]: CallSums(row[1], row[2] or Decimal(0), row[3] or Decimal(0)) for row in rows}


def sum_texts(session: Session, org_ids: Collection[UUID], *, start: datetime, end: datetime) -> dict[UUID, TextSums]:
    """The texts between ``start`` and ``end`` by organization; one that Twilio never took costs nothing."""
    rows = session.execute(
        select(
            Message.org_id,
            func.count().filter(Message.direction == "outbound", Message.provider_sid.is_not(None)),
            func.count().filter(Message.direction == "inbound"),
        )
        .where(Message.org_id.in_(org_ids), Message.created_at >= start, Message.created_at < end)
        .group_by(Message.org_id)
    )
    return {row[0]: TextSums(row[1], row[2]) for row in rows}


def list_limits(session: Session, org_id: UUID | None = None) -> dict[UUID, dict[str, Decimal]]:
    """The limits by organization and kind, of one organization when it is given."""
    statement = select(UsageLimit)
    found: dict[UUID, dict[str, Decimal]] = {}
    for row in session.scalars(statement.where(UsageLimit.org_id == org_id) if org_id else statement):
        found.setdefault(row.org_id, {})[row.kind] = row.most
    return found


def set_limit(session: Session, org_id: UUID, kind: str, most: Decimal | None) -> None:
    """Set, replace or (None) take away one limit. Safe to repeat."""
    if most is None:
        session.execute(delete(UsageLimit).where(UsageLimit.org_id == org_id, UsageLimit.kind == kind))
        return
    row = insert(UsageLimit).values(org_id=org_id, kind=kind, most=most)
    session.execute(row.on_conflict_do_update(index_elements=[UsageLimit.org_id, UsageLimit.kind], set_={"most": most}))
