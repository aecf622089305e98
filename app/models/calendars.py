"""Google's push channels as far as they are known: which resource a channel speaks of, and that it changed."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import ForeignKeyConstraint, exists, func, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, aliased, mapped_column

from app.models.base import Base, CreatedAt, OrgId
from app.models.integrations import Integration


class CalendarChannel(Base):
    """One channel of one calendar. ``sync_requested_at``: go and sync, something changed since then."""

    __tablename__ = "calendar_channels"
    __table_args__ = (
        ForeignKeyConstraint(
            ["org_id", "integration_id"], ["integrations.org_id", "integrations.id"], ondelete="CASCADE"
        ),
    )

    org_id: Mapped[OrgId] = mapped_column(primary_key=True)
    integration_id: Mapped[UUID] = mapped_column(primary_key=True)
    channel_id: Mapped[str] = mapped_column(primary_key=True)
    resource_id: Mapped[str]
    expires_at: Mapped[datetime | None]
    sync_requested_at: Mapped[datetime | None]
    created_at: Mapped[CreatedAt]


def note_channel(
    session: Session,
    org_id: UUID,
    integration_id: UUID,
    *,
    channel_id: str,
    resource_id: str,
    expires_at: datetime | None,
    changed: bool,
) -> bool:
    """Remember the channel (its first word pins the resource) and, when ``changed``, that a sync is due.

    Returns False when the channel is known for another resource: then nothing is noted.
    """
    row = insert(CalendarChannel).values(
        org_id=org_id,
        integration_id=integration_id,
        channel_id=channel_id,
        resource_id=resource_id,
        expires_at=expires_at,
        sync_requested_at=func.now() if changed else None,
    )
    noted = session.execute(
        row.on_conflict_do_update(
            index_elements=[CalendarChannel.org_id, CalendarChannel.integration_id, CalendarChannel.channel_id],
            set_={
                "expires_at": func.coalesce(row.excluded.expires_at, CalendarChannel.expires_at),
                "sync_requested_at": func.coalesce(row.excluded.sync_requested_at, CalendarChannel.sync_requested_at),
            },
            where=CalendarChannel.resource_id == resource_id,
        ).returning(CalendarChannel.channel_id)
    ).first()
    return noted is not None


def list_lapsing(session: Session, *, within: timedelta) -> list[CalendarChannel]:
    """The channels that end within the time (or have ended) with none that lives longer, of enabled integrations."""
    later = aliased(CalendarChannel)
    longer_lived = exists().where(
        later.org_id == CalendarChannel.org_id,
        later.integration_id == CalendarChannel.integration_id,
        later.resource_id == CalendarChannel.resource_id,
        or_(later.expires_at.is_(None), later.expires_at > CalendarChannel.expires_at),
    )
    enabled = exists().where(Integration.id == CalendarChannel.integration_id, Integration.disabled_at.is_(None))
    return list(
        session.scalars(
            select(CalendarChannel)
            .where(CalendarChannel.expires_at < func.now() + within, ~longer_lived, enabled)
            .order_by(CalendarChannel.expires_at)
        )
    )
