"""Organizations (the small businesses) and their API keys. A key is kept only as its hash."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Integer, SmallInteger, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from app.models.base import Base, CreatedAt, Id, OrgId


class Organization(Base):
    """A business: when it is open, in which time zone, and who answers its phone."""

    __tablename__ = "organizations"

    id: Mapped[Id]
    name: Mapped[str]
    timezone: Mapped[str]
    phone_number: Mapped[str | None]
    transfer_number: Mapped[str | None]
    assistant_id: Mapped[str | None]
    # {"mon": [["09:00", "17:00"], ...], ...}; a day that is missing is closed
    opening_hours: Mapped[dict[str, Any]]
    slot_minutes: Mapped[int] = mapped_column(SmallInteger, server_default="30")
    # None: what the settings say for everybody
    api_quota_per_hour: Mapped[int | None] = mapped_column(Integer)
    webhook_quota_per_hour: Mapped[int | None] = mapped_column(Integer)
    created_at: Mapped[CreatedAt]


class ApiKey(Base):
    """A key of the API: its first characters to recognise it by, and a hash of the whole."""

    __tablename__ = "api_keys"

    id: Mapped[Id]
    org_id: Mapped[OrgId] = mapped_column(ForeignKey("organizations.id", ondelete="CASCADE"), index=True)
    prefix: Mapped[str]
    key_hash: Mapped[str] = mapped_column(unique=True)
    label: Mapped[str | None]
    scopes: Mapped[list[Any]] = mapped_column(server_default='["read", "write"]')
    created_at: Mapped[CreatedAt]
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


def find_organization(session: Session, org_id: UUID) -> Organization | None:
    """The organization, or None when there is none or this transaction may not see it."""
    return session.get(Organization, org_id)


def list_organizations(session: Session) -> list[Organization]:
    """All that this transaction may see, the oldest first."""
    return list(session.scalars(select(Organization).order_by(Organization.created_at)))
