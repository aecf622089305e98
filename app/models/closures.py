"""When an organization, or one of its staff or rooms, is closed against its hours: holidays, repairs, leave.

Owns the table and its queries.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, Index, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from app.models.base import Base, CreatedAt, Id, OrgId


class Closure(Base):
    """A stretch of time in which nothing is booked. ``resource_id`` None: the whole business."""

    __tablename__ = "closures"
    __table_args__ = (
        CheckConstraint("starts_at < ends_at", name="times"),
        ForeignKeyConstraint(["org_id", "resource_id"], ["resources.org_id", "resources.id"], ondelete="CASCADE"),
        Index("ix_closures_ends", "org_id", "ends_at"),
    )

    id: Mapped[Id]
    org_id: Mapped[OrgId] = mapped_column(ForeignKey("organizations.id", ondelete="CASCADE"))
    resource_id: Mapped[UUID | None]
    name: Mapped[str]
    starts_at: Mapped[datetime]
    ends_at: Mapped[datetime]
    created_at: Mapped[CreatedAt]


def find_closure(session: Session, closure_id: UUID) -> Closure | None:
    """The closure, or None when there is none or this transaction may not see it."""
    return session.get(Closure, closure_id)


def list_closures(session: Session, org_id: UUID | None = None, *, after: datetime | None = None) -> list[Closure]:
    """All that this transaction may see, of one organization when it is given, and not over ``after``, by time."""
    statement = select(Closure).order_by(Closure.org_id, Closure.starts_at)
    if org_id is not None:
        statement = statement.where(Closure.org_id == org_id)
    return list(session.scalars(statement if after is None else statement.where(Closure.ends_at > after)))
