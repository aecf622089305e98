"""Integrations: an organization's connection to one provider, or the platform's, which serves many organizations."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    LargeBinary,
    String,
    UniqueConstraint,
    func,
    literal_column,
    select,
    update,
)
from sqlalchemy.orm import Mapped, Session, mapped_column

from app.models.base import Base, CreatedAt, Id


class Integration(Base):
    """One provider of one organization; of the platform when ``org_id`` is None.

    ``credentials`` is encrypted JSON, and so is ``previous_credentials``, which pass too until ``previous_until``;
    only services decrypt them. ``verification``: ``enforce``, ``shadow`` or ``quarantine``.
    """

    __tablename__ = "integrations"
    __table_args__ = (
        UniqueConstraint("org_id", "id"),
        CheckConstraint("verification IN ('enforce', 'shadow', 'quarantine')", name="verification"),
    )

    id: Mapped[Id]
    org_id: Mapped[UUID | None] = mapped_column(ForeignKey("organizations.id", ondelete="CASCADE"))
    provider: Mapped[str]
    token: Mapped[str] = mapped_column(unique=True)
    credentials: Mapped[bytes] = mapped_column(LargeBinary)
    previous_credentials: Mapped[bytes | None] = mapped_column(LargeBinary)
    previous_until: Mapped[datetime | None]
    verification: Mapped[str] = mapped_column(server_default="enforce")
    settings: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    created_at: Mapped[CreatedAt]
    disabled_at: Mapped[datetime | None]


# Another one after each change of the row, and no other row's: several may be written by one transaction.
_VERSION = literal_column("integrations.id || ':' || integrations.xmin", String)


def find_by_token(session: Session, token: str) -> Integration | None:
    """The enabled integration behind an endpoint token."""
    return session.scalar(select(Integration).where(Integration.token == token, Integration.disabled_at.is_(None)))


def find_versioned(session: Session, tokens: Collection[str]) -> list[tuple[Integration, str]]:
    """The enabled integrations behind these tokens, each with its row's version."""
    asked = select(Integration, _VERSION).where(Integration.token.in_(tokens), Integration.disabled_at.is_(None))
    return [(row[0], row[1]) for row in session.execute(asked)]


def find_integration(session: Session, integration_id: UUID) -> Integration | None:
    """The integration, enabled or not, if this transaction may see it."""
    return session.get(Integration, integration_id)


def find_for_provider(session: Session, org_id: UUID, provider: str) -> tuple[Integration, str] | None:
    """The organization's newest enabled integration with this provider, with its row's version."""
    asked = (
        select(Integration, _VERSION)
        .where(Integration.org_id == org_id, Integration.provider == provider, Integration.disabled_at.is_(None))
        .order_by(Integration.created_at.desc())
        .limit(1)
    )
    row = session.execute(asked).one_or_none()
    return (row[0], row[1]) if row is not None else None


def find_platform_integration(session: Session, provider: str) -> Integration | None:
    """The platform's newest enabled integration with this provider."""
    return session.scalar(
        select(Integration)
        .where(Integration.org_id.is_(None), Integration.provider == provider, Integration.disabled_at.is_(None))
        .order_by(Integration.created_at.desc())
        .limit(1)
    )


def list_integrations(session: Session, org_id: UUID | None = None) -> list[Integration]:
    """All that this transaction may see, of one organization when it is given."""
    statement = select(Integration).order_by(Integration.created_at)
    return list(session.scalars(statement.where(Integration.org_id == org_id) if org_id else statement))


def list_sealed(session: Session, *, after: UUID | None, limit: int) -> list[tuple[UUID, UUID | None, bytes]]:
    """Id, organization and sealed credentials of the next integrations in the order of their ids, disabled ones too."""
    statement = select(Integration.id, Integration.org_id, Integration.credentials).order_by(Integration.id)
    if after is not None:
        statement = statement.where(Integration.id > after)
    return [(row[0], row[1], row[2]) for row in session.execute(statement.limit(limit))]


def replace_sealed(session: Session, integration_id: UUID, *, old: bytes, new: bytes) -> bool:
    """Replace the sealed credentials if they are still ``old``; False when somebody has set others since."""
    row = update(Integration).where(Integration.id == integration_id, Integration.credentials == old)
    replaced = session.execute(row.values(credentials=new).returning(Integration.id)).first()
    return replaced is not None


def list_previous(session: Session) -> list[tuple[UUID, bytes]]:
    """Integrations whose former credentials are kept, with those, sealed."""
    rows = session.execute(
        select(Integration.id, Integration.previous_credentials).where(Integration.previous_credentials.is_not(None))
    )
    return [(row[0], row[1]) for row in rows if row[1] is not None]


def replace_previous(session: Session, integration_id: UUID, *, old: bytes, new: bytes) -> None:
    """Replace the former sealed credentials if they are still ``old``."""
    row = update(Integration).where(Integration.id == integration_id, Integration.previous_credentials == old)
    session.execute(row.values(previous_credentials=new))


def forget_previous(session: Session) -> int:
    """Delete former credentials whose overlap is over; how many."""
    row = update(Integration).where(Integration.previous_until < func.now())
    gone = session.execute(row.values(previous_credentials=None, previous_until=None).returning(Integration.id))
    return len(gone.all())


def count_lenient(session: Session) -> dict[str, int]:
    """How many enabled integrations do not simply refuse what is not proven, by mode."""
    lenient = (Integration.verification != "enforce", Integration.disabled_at.is_(None))
    rows = session.execute(
        select(Integration.verification, func.count()).where(*lenient).group_by(Integration.verification)
    )
    return {row[0]: row[1] for row in rows}


def count_integrations(session: Session) -> int:
    """How many there are, disabled ones too."""
    return session.scalar(select(func.count()).select_from(Integration)) or 0


def list_sealed_with_provider(session: Session, *, limit: int) -> list[tuple[str, bytes]]:
    """Provider and sealed credentials of integrations, the oldest first: those most likely sealed with an old key."""
    statement = select(Integration.provider, Integration.credentials).order_by(Integration.created_at).limit(limit)
    return [(row[0], row[1]) for row in session.execute(statement)]


def list_enabled(session: Session, provider: str, *, limit: int) -> list[Integration]:
    """The newest enabled integrations with this provider."""
    statement = select(Integration).where(Integration.provider == provider, Integration.disabled_at.is_(None))
    return list(session.scalars(statement.order_by(Integration.created_at.desc()).limit(limit)))
