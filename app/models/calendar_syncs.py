"""Where the mirror of each calendar stands: what is asked for, what is running, and what is known.

Owns the flag that makes many requests one sync, and the number that makes of two runs only the newer count.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import ForeignKeyConstraint, Update, exists, func, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, aliased, mapped_column

from app.models.base import Base, OrgId
from app.models.integrations import Integration
from app.models.lanes import Lane

FORGOTTEN_AFTER = timedelta(hours=1)  # a request that nobody has begun since may be made again


class CalendarSync(Base):
    """One calendar. ``synced_at`` is when the last complete sync began: the mirror knows all up to then.

    ``sync_requested_at``: a sync is planned and not begun. ``run`` counts the syncs that began.
    ``mirrored_until``: how far ahead the mirror looks. ``sync_token`` belongs to ``calendar_id``.
    """

    __tablename__ = "calendar_syncs"
    __table_args__ = (
        ForeignKeyConstraint(
            ["org_id", "integration_id"], ["integrations.org_id", "integrations.id"], ondelete="CASCADE"
        ),
    )

    org_id: Mapped[OrgId] = mapped_column(primary_key=True)
    integration_id: Mapped[UUID] = mapped_column(primary_key=True)
    calendar_id: Mapped[str | None]
    sync_token: Mapped[str | None]
    run: Mapped[int] = mapped_column(server_default="0")
    sync_requested_at: Mapped[datetime | None]
    begun_at: Mapped[datetime | None]
    synced_at: Mapped[datetime | None]
    full_synced_at: Mapped[datetime | None]
    mirrored_until: Mapped[datetime | None]
    next_sync_at: Mapped[datetime] = mapped_column(server_default=func.now())
    next_watch_at: Mapped[datetime] = mapped_column(server_default=func.now())


@dataclass(frozen=True, slots=True)
class Requested:
    """A sync that is now to be planned: when it was asked for, and when it may begin."""

    at: datetime
    due_at: datetime


@dataclass(frozen=True, slots=True)
class Run:
    """A sync that has begun. ``sync_token`` None: everything is to be read anew."""

    org_id: UUID
    integration_id: UUID
    number: int
    begun_at: datetime
    sync_token: str | None


def request_sync(session: Session, org_id: UUID, integration_id: UUID, *, gap: timedelta) -> Requested | None:
    """Ask for a sync, to begin ``gap`` after the last one began; None when one is planned already."""
    row = insert(CalendarSync).values(org_id=org_id, integration_id=integration_id, sync_requested_at=func.now())
    found = session.execute(
        row.on_conflict_do_update(
            index_elements=[CalendarSync.org_id, CalendarSync.integration_id],
            set_={"sync_requested_at": func.now()},
            where=or_(
                CalendarSync.sync_requested_at.is_(None),
                CalendarSync.sync_requested_at < func.now() - FORGOTTEN_AFTER,
            ),
        ).returning(CalendarSync.sync_requested_at, func.greatest(func.now(), CalendarSync.begun_at + gap))
    ).first()
    return Requested(found[0], found[1]) if found else None


def begin_sync(
    session: Session,
    org_id: UUID,
    integration_id: UUID,
    *,
    calendar_id: str,
    requested_at: datetime,
    full_every: timedelta,
) -> Run | None:
    """Begin, so that every earlier run counts no more; None when all up to ``requested_at`` is known already."""
    row = _lock(session, org_id, integration_id)
    if row is None:
        return None
    if row.synced_at is not None and row.synced_at > requested_at and row.calendar_id == calendar_id:
        row.sync_requested_at = None
        return None
    now = session.scalar(select(func.now()))
    assert now is not None
    fresh = row.full_synced_at is not None and row.full_synced_at > now - full_every
    row.run += 1
    row.begun_at, row.sync_requested_at = now, None
    session.flush()
    token = row.sync_token if fresh and row.calendar_id == calendar_id else None
    return Run(org_id, integration_id, row.run, now, token)


def lock_run(session: Session, run: Run) -> bool:
    """Whether no newer run has begun; none can until the transaction ends."""
    row = _lock(session, run.org_id, run.integration_id)
    return row is not None and row.run == run.number


def drop_token(session: Session, run: Run) -> None:
    """Google has forgotten the token."""
    session.execute(_of(run).values(sync_token=None))


def finish_sync(
    session: Session,
    run: Run,
    *,
    calendar_id: str,
    sync_token: str | None,
    mirrored_until: datetime | None,
    next_in: timedelta,
) -> None:
    """What was read is applied: the token may be kept. ``mirrored_until`` is given after a full sync."""
    full = {} if mirrored_until is None else {"full_synced_at": run.begun_at, "mirrored_until": mirrored_until}
    session.execute(
        _of(run).values(
            calendar_id=calendar_id,
            sync_token=sync_token,
            synced_at=run.begun_at,
            next_sync_at=func.now() + next_in,
            **full,
        )
    )


def put_off(session: Session, org_id: UUID, integration_id: UUID, *, sync: timedelta | None, watch: timedelta) -> None:
    """Look again for a missing sync, or a missing channel, after this long; ``sync`` None leaves its date."""
    dates = {"next_watch_at": func.now() + watch}
    if sync is not None:
        dates["next_sync_at"] = func.now() + sync
    row = insert(CalendarSync).values(org_id=org_id, integration_id=integration_id, **dates)
    session.execute(
        row.on_conflict_do_update(index_elements=[CalendarSync.org_id, CalendarSync.integration_id], set_=dates)
    )


def find_sync(session: Session, org_id: UUID, integration_id: UUID) -> CalendarSync | None:
    """Where the calendar's mirror stands; None before anybody asked for a sync."""
    return session.get(CalendarSync, (org_id, integration_id))


def list_due_syncs(session: Session, *, lane_prefix: str, limit: int) -> list[tuple[UUID, UUID]]:
    """Connected calendars that nobody has looked at for long and for which no sync is under way: organization, id.

    Of an organization with several, the newest: it is the one appointments go to.
    """
    newer = aliased(Integration)
    superseded = exists().where(
        newer.org_id == Integration.org_id,
        newer.provider == Integration.provider,
        newer.disabled_at.is_(None),
        newer.created_at > Integration.created_at,
    )
    under_way = exists().where(
        Lane.org_id == Integration.org_id, func.starts_with(Lane.lane_key, text(":prefix || integrations.id::text"))
    )
    rows = session.execute(
        select(Integration.org_id, Integration.id)
        .outerjoin(
            CalendarSync,
            (CalendarSync.org_id == Integration.org_id) & (CalendarSync.integration_id == Integration.id),
        )
        .where(
            Integration.provider == "google-calendar",
            Integration.disabled_at.is_(None),
            ~superseded,
            ~under_way,
            or_(CalendarSync.next_sync_at.is_(None), CalendarSync.next_sync_at <= func.now()),
        )
        .order_by(CalendarSync.next_sync_at.nulls_first())
        .limit(limit),
        {"prefix": lane_prefix},
    )
    return [(row[0], row[1]) for row in rows if row[0] is not None]


def _lock(session: Session, org_id: UUID, integration_id: UUID) -> CalendarSync | None:
    return session.scalar(
        select(CalendarSync)
        .where(CalendarSync.org_id == org_id, CalendarSync.integration_id == integration_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )


def _of(run: Run) -> Update:
    return (
        update(CalendarSync)
        .where(CalendarSync.org_id == run.org_id, CalendarSync.integration_id == run.integration_id)
        .execution_options(synchronize_session=False)
    )
