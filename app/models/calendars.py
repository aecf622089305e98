"""Google's push channels as far as they are known: which resource each speaks of, and until when.

Owns when a channel needs a successor, and when it has one. What a push leads to is in ``calendar_syncs.py``.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, ForeignKeyConstraint, and_, delete, exists, func, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, aliased, mapped_column

from app.models.base import Base, CreatedAt, OrgId
from app.models.calendar_syncs import CalendarSync
from app.models.integrations import Integration
from app.models.lanes import Lane

RENEW_BEFORE = timedelta(hours=36)  # half a day to try in, before an end within a day raises an alert
RENEW_AT = 0.3  # of its life, for a channel that lives only days or hours


class CalendarChannel(Base):
    """One channel of one calendar, made here or by hand. ``heard_at``: its last push, the first of which greets."""

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
    # which calendar it was opened for; None for one that was opened by hand
    calendar_id: Mapped[str | None]
    expires_at: Mapped[datetime | None]
    heard_at: Mapped[datetime | None]
    stopped_at: Mapped[datetime | None]
    created_at: Mapped[CreatedAt]


def note_channel(
    session: Session,
    org_id: UUID,
    integration_id: UUID,
    *,
    channel_id: str,
    resource_id: str,
    expires_at: datetime | None,
    heard: bool,
    calendar_id: str | None = None,
) -> bool:
    """Remember the channel (its first word pins the resource) and, when ``heard``, that it speaks.

    Returns False when the channel is known for another resource: then nothing is noted.
    """
    row = insert(CalendarChannel).values(
        org_id=org_id,
        integration_id=integration_id,
        channel_id=channel_id,
        resource_id=resource_id,
        expires_at=expires_at,
        calendar_id=calendar_id,
        heard_at=func.now() if heard else None,
    )
    noted = session.execute(
        row.on_conflict_do_update(
            index_elements=[CalendarChannel.org_id, CalendarChannel.integration_id, CalendarChannel.channel_id],
            set_={
                "expires_at": func.coalesce(row.excluded.expires_at, CalendarChannel.expires_at),
                "calendar_id": func.coalesce(row.excluded.calendar_id, CalendarChannel.calendar_id),
                "heard_at": func.coalesce(row.excluded.heard_at, CalendarChannel.heard_at),
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
        later.stopped_at.is_(None),
        or_(later.expires_at.is_(None), later.expires_at > CalendarChannel.expires_at),
    )
    enabled = exists().where(Integration.id == CalendarChannel.integration_id, Integration.disabled_at.is_(None))
    return list(
        session.scalars(
            select(CalendarChannel)
            .where(
                CalendarChannel.expires_at < func.now() + within,
                CalendarChannel.stopped_at.is_(None),
                ~longer_lived,
                enabled,
            )
            .order_by(CalendarChannel.expires_at)
        )
    )


def list_unattended(session: Session, *, lane_prefix: str, limit: int) -> list[tuple[UUID, UUID]]:
    """Calendars that need a channel opened or one stopped, and nobody is at it: organization, integration.

    Only those that were synced before: then their credentials work.
    """
    under_way = exists().where(
        Lane.org_id == CalendarSync.org_id,
        func.starts_with(Lane.lane_key, text(":prefix || calendar_syncs.integration_id::text")),
    )
    channel, successor = aliased(CalendarChannel), aliased(CalendarChannel)
    rows = session.execute(
        select(CalendarSync.org_id, CalendarSync.integration_id)
        .join(Integration, Integration.id == CalendarSync.integration_id)
        .where(
            Integration.disabled_at.is_(None),
            CalendarSync.synced_at.is_not(None),
            CalendarSync.next_watch_at <= func.now(),
            ~under_way,
            or_(
                ~exists().where(_is_lasting(channel, CalendarSync.calendar_id), _is_of(channel)),
                exists().where(_is_superseded(channel, successor, CalendarSync.calendar_id), _is_of(channel)),
            ),
        )
        .order_by(CalendarSync.next_watch_at)
        .limit(limit),
        {"prefix": lane_prefix},
    )
    return [(row[0], row[1]) for row in rows]


def has_lasting(session: Session, org_id: UUID, integration_id: UUID, *, calendar_id: str) -> bool:
    """Whether a channel speaks of this calendar, and for long enough."""
    found = select(CalendarChannel.channel_id).where(
        CalendarChannel.org_id == org_id,
        CalendarChannel.integration_id == integration_id,
        _is_lasting(CalendarChannel, calendar_id),
    )
    return session.scalar(found.limit(1)) is not None


def list_superseded(session: Session, org_id: UUID, integration_id: UUID, *, calendar_id: str) -> list[CalendarChannel]:
    """The channels that another, heard from already, has taken over from."""
    successor = aliased(CalendarChannel)
    return list(
        session.scalars(
            select(CalendarChannel).where(
                CalendarChannel.org_id == org_id,
                CalendarChannel.integration_id == integration_id,
                _is_superseded(CalendarChannel, successor, calendar_id),
            )
        )
    )


def mark_stopped(session: Session, org_id: UUID, integration_id: UUID, channel_id: str) -> None:
    """Nobody counts on this channel any more; what it may still say is heard all the same."""
    session.execute(
        update(CalendarChannel)
        .where(
            CalendarChannel.org_id == org_id,
            CalendarChannel.integration_id == integration_id,
            CalendarChannel.channel_id == channel_id,
        )
        .values(stopped_at=func.now())
    )


def forget_ended(session: Session, org_id: UUID, integration_id: UUID, *, before: timedelta) -> None:
    """Drop channels that ended so long ago, if another has come since."""
    later = aliased(CalendarChannel)
    session.execute(
        delete(CalendarChannel).where(
            CalendarChannel.org_id == org_id,
            CalendarChannel.integration_id == integration_id,
            CalendarChannel.expires_at < func.now() - before,
            exists().where(
                later.org_id == org_id,
                later.integration_id == integration_id,
                later.expires_at > CalendarChannel.expires_at,
            ),
        )
    )


def list_channels(session: Session, *, org_id: UUID | None = None) -> list[CalendarChannel]:
    """All channels, or one organization's, those that end last first."""
    statement = select(CalendarChannel).order_by(CalendarChannel.org_id, CalendarChannel.expires_at.desc())
    return list(session.scalars(statement.where(CalendarChannel.org_id == org_id) if org_id else statement))


def _is_of(channel: type[CalendarChannel]) -> ColumnElement[bool]:
    return and_(channel.org_id == CalendarSync.org_id, channel.integration_id == CalendarSync.integration_id)


def _is_lasting(channel: type[CalendarChannel], calendar_id: Any) -> ColumnElement[bool]:
    """In use, for this calendar (one opened by hand is believed to be), and not about to end."""
    lives, left = (func.extract("epoch", channel.expires_at - since) for since in (channel.created_at, func.now()))
    return and_(
        channel.stopped_at.is_(None),
        or_(channel.calendar_id.is_(None), channel.calendar_id == calendar_id),
        or_(channel.expires_at.is_(None), left > func.least(RENEW_BEFORE.total_seconds(), lives * RENEW_AT)),
    )


def _is_superseded(
    channel: type[CalendarChannel], successor: type[CalendarChannel], calendar_id: Any
) -> ColumnElement[bool]:
    """In use still, while a younger one of ours for this calendar has been heard from."""
    return and_(
        channel.stopped_at.is_(None),
        or_(channel.expires_at.is_(None), channel.expires_at > func.now()),
        exists().where(
            successor.org_id == channel.org_id,
            successor.integration_id == channel.integration_id,
            successor.calendar_id == calendar_id,
            successor.created_at > channel.created_at,
            successor.heard_at.is_not(None),
            successor.stopped_at.is_(None),
        ),
    )
