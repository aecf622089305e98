"""Integrations: an organization's connection to one provider, with its endpoint token and credentials."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, LargeBinary, UniqueConstraint, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from app.models.base import Base, CreatedAt, Id, OrgId


class Integration(Base):
    """One provider of one organization. ``credentials`` is encrypted JSON; only services decrypt it."""

    __tablename__ = "integrations"
    __table_args__ = (UniqueConstraint("org_id", "id"),)

    id: Mapped[Id]
    org_id: Mapped[OrgId] = mapped_column(ForeignKey("organizations.id", ondelete="CASCADE"))
    provider: Mapped[str]
    token: Mapped[str] = mapped_column(unique=True)
    credentials: Mapped[bytes] = mapped_column(LargeBinary)
    settings: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    created_at: Mapped[CreatedAt]
    disabled_at: Mapped[datetime | None]


def find_by_token(session: Session, token: str) -> Integration | None:
    """The enabled integration behind an endpoint token."""
    return session.scalar(select(Integration).where(Integration.token == token, Integration.disabled_at.is_(None)))


def find_for_provider(session: Session, org_id: UUID, provider: str) -> Integration | None:
    """The organization's newest enabled integration with this provider."""
    return session.scalar(
        select(Integration)
        .where(Integration.org_id == org_id, Integration.provider == provider, Integration.disabled_at.is_(None))
        .order_by(Integration.created_at.desc())
        .limit(1)
    )


def list_integrations(session: Session, org_id: UUID | None = None) -> list[Integration]:
    """All that this transaction may see, of one organization when it is given."""
    statement = select(Integration).order_by(Integration.created_at)
    return list(session.scalars(statement.where(Integration.org_id == org_id) if org_id else statement))
