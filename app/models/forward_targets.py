"""Where an organization's events are forwarded to, and what they are signed with.

Owns ``forward_targets``: one row an organization at most. The secrets are encrypted; only services open them.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, LargeBinary, func, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from app.models.base import Base, CreatedAt, OrgId

GONE, BY_HAND = "gone", "by_hand"
SecretColumn = Literal["secret", "previous_secret"]


class ForwardTarget(Base):
    """``previous_secret`` signs beside ``secret`` until ``previous_until``. Off: since when, and why."""

    __tablename__ = "forward_targets"
    __table_args__ = (
        CheckConstraint("off_reason IN ('gone', 'by_hand')", name="off_reason"),
        CheckConstraint("(off_since IS NULL) = (off_reason IS NULL)", name="off"),
    )

    org_id: Mapped[OrgId] = mapped_column(ForeignKey("organizations.id", ondelete="CASCADE"), primary_key=True)
    url: Mapped[str]
    secret: Mapped[bytes] = mapped_column(LargeBinary)
    previous_secret: Mapped[bytes | None] = mapped_column(LargeBinary)
    previous_until: Mapped[datetime | None]
    off_since: Mapped[datetime | None]
    off_reason: Mapped[str | None]
    created_at: Mapped[CreatedAt]


def find_target(session: Session, org_id: UUID, *, lock: bool = False) -> ForwardTarget | None:
    """The organization's target, also one that is off."""
    return session.get(ForwardTarget, org_id, with_for_update=lock)


def switch_off_gone(session: Session, org_id: UUID, *, url: str) -> bool:
    """The target said that it is gone: off, unless another URL has been set meanwhile."""
    row = update(ForwardTarget).where(
        ForwardTarget.org_id == org_id, ForwardTarget.url == url, ForwardTarget.off_since.is_(None)
    )
    off = session.execute(row.values(off_since=func.now(), off_reason=GONE).returning(ForwardTarget.org_id))
    return off.first() is not None


def overlap_of(session: Session, hours: float) -> datetime:
    """Until when an old secret signs too, by the database's clock."""
    until: datetime = session.execute(select(func.now() + timedelta(hours=hours))).scalar_one()
    return until


def now_of(session: Session) -> datetime:
    """The database's clock."""
    now: datetime = session.execute(select(func.now())).scalar_one()
    return now


def list_gone(session: Session) -> list[tuple[UUID, datetime]]:
    """The organizations whose target said that it is gone, and since when."""
    rows = session.execute(
        select(ForwardTarget.org_id, ForwardTarget.off_since).where(ForwardTarget.off_reason == GONE)
    )
    return [(row[0], row[1]) for row in rows if row[1] is not None]


def list_sealed_secrets(session: Session) -> list[tuple[UUID, SecretColumn, bytes]]:
    """Every secret there is, sealed, with its place."""
    rows = session.scalars(select(ForwardTarget).order_by(ForwardTarget.org_id)).all()
    found: list[tuple[UUID, SecretColumn, bytes]] = [(row.org_id, "secret", row.secret) for row in rows]
    found += [(row.org_id, "previous_secret", row.previous_secret) for row in rows if row.previous_secret]
    return found


def replace_secret(session: Session, org_id: UUID, column: SecretColumn, *, old: bytes, new: bytes) -> None:
    """Replace a sealed secret if it is still ``old``."""
    place = ForwardTarget.secret if column == "secret" else ForwardTarget.previous_secret
    session.execute(update(ForwardTarget).where(ForwardTarget.org_id == org_id, place == old).values({place: new}))
