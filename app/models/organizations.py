"""Organizations (the small businesses) and their API keys. A key is kept only as its hash."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    Integer,
    SmallInteger,
    String,
    func,
    literal_column,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.orm import Mapped, Session, mapped_column

from app.models.base import Base, CreatedAt, Id, OrgId


class Organization(Base):
    """A business: when it is open, in which time zone, and who answers its phone."""

    __tablename__ = "organizations"
    __table_args__ = (CheckConstraint("keep_words_days >= 0", name="keep_words_days"),)

    id: Mapped[Id]
    name: Mapped[str]
    timezone: Mapped[str]
    phone_number: Mapped[str | None]
    transfer_number: Mapped[str | None]
    assistant_id: Mapped[str | None]
    # {"mon": [["09:00", "17:00"], ...], ...}; a day that is missing is closed
    opening_hours: Mapped[dict[str, Any]]
    slot_minutes: Mapped[int] = mapped_column(SmallInteger, server_default="30")
    # how long before, at the latest, and how many days before, at the earliest, something is booked
    notice_minutes: Mapped[int] = mapped_column(Integer, server_default="0")
    ahead_days: Mapped[int | None] = mapped_column(SmallInteger)
    # how many may be there at once, where no staff or rooms are named
    seats: Mapped[int] = mapped_column(SmallInteger, server_default="1")
    # how long transcripts, recording links and texts are kept; 0: they are not stored
    keep_words_days: Mapped[int] = mapped_column(SmallInteger, server_default="90")
    # what a call begins with
    consent_sentence: Mapped[str | None]
    # None: what the settings say for everybody
    api_quota_per_hour: Mapped[int | None] = mapped_column(Integer)
    webhook_quota_per_hour: Mapped[int | None] = mapped_column(Integer)
    # The operator's own name for it, by which an import knows it again
    ref: Mapped[str | None] = mapped_column(unique=True)
    # what is said and texted: its language, and its own wordings: {"de": {"text.moved": {"text", "content_sid"}}}
    language: Mapped[str] = mapped_column(server_default="en")
    templates: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    # whether customers are reminded the day before, and when nobody is, in local time: ["21:00", "08:00"]; []: never
    reminders: Mapped[bool] = mapped_column(server_default=text("true"))
    quiet_hours: Mapped[list[Any]] = mapped_column(server_default='["21:00", "08:00"]')
    # who at the business is texted, and about what
    notify_number: Mapped[str | None]
    notify_about: Mapped[list[Any]] = mapped_column(server_default='["bookings", "changes", "unfinished"]')
    # whether SMS may carry what WhatsApp does not take
    sms_instead: Mapped[bool] = mapped_column(server_default=text("true"))
    suspended_at: Mapped[datetime | None]
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


_VERSION = literal_column("organizations.xmin::text", String)  # another one after each change of the row


def find_versioned(session: Session, org_ids: Collection[UUID]) -> list[tuple[Organization, str]]:
    """Those of the organizations that this transaction may see, each with its row's version."""
    asked = select(Organization, _VERSION).where(Organization.id.in_(org_ids))
    return [(row[0], row[1]) for row in session.execute(asked)]


def lock_organization(session: Session, org_id: UUID) -> Organization | None:
    """The organization, locked until the transaction ends."""
    return session.scalar(select(Organization).where(Organization.id == org_id).with_for_update())


def list_organizations(session: Session) -> list[Organization]:
    """All that this transaction may see, the oldest first."""
    return list(session.scalars(select(Organization).order_by(Organization.created_at)))


def find_key(session: Session, key_hash: str) -> tuple[ApiKey, int | None] | None:
    """The key with this hash, revoked or not, and its organization's own quota of the API."""
    found = session.execute(
        select(ApiKey, Organization.api_quota_per_hour)
        .join(Organization, Organization.id == ApiKey.org_id)
        .where(ApiKey.key_hash == key_hash)
    ).first()
    return (found[0], found[1]) if found else None


def list_keys(session: Session, *, org_id: UUID | None = None) -> list[ApiKey]:
    """All keys, or one organization's, the oldest first; revoked ones too."""
    statement = select(ApiKey).order_by(ApiKey.created_at, ApiKey.id)
    return list(session.scalars(statement.where(ApiKey.org_id == org_id) if org_id else statement))


def lock_keys(session: Session, prefix: str) -> list[ApiKey]:
    """The keys that begin so, locked until the transaction ends: almost always one or none."""
    return list(session.scalars(select(ApiKey).where(ApiKey.prefix == prefix).with_for_update()))


def note_key_use(session: Session, key_id: UUID, *, at_most_every: timedelta) -> None:
    """Write that the key is used just now, unless that was written so lately."""
    session.execute(
        update(ApiKey)
        .where(
            ApiKey.id == key_id,
            or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < func.now() - at_most_every),
        )
        .values(last_used_at=func.now())
        .execution_options(synchronize_session=False)
    )


def names_of(session: Session, org_ids: Collection[UUID]) -> dict[UUID, str]:
    """The names of these organizations; one that is not there is left out."""
    if not org_ids:
        return {}
    rows = session.execute(select(Organization.id, Organization.name).where(Organization.id.in_(org_ids)))
    return {row.id: row.name for row in rows}
