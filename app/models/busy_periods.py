"""When people are busy by their own calendar: times alone, nobody's titles or guests.

Owns the mirror's rows. They may overlap each other and our bookings, as events in a calendar may.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKeyConstraint, Index, delete, func, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from app.models.base import Base, OrgId

_INSTANCE = r"_[0-9]{8}(T[0-9]{6}Z)?$"  # how the id of one date of a recurring event ends


class BusyPeriod(Base):
    """One event that somebody else entered, and that keeps them busy."""

    __tablename__ = "busy_periods"
    __table_args__ = (
        CheckConstraint("starts_at < ends_at", name="times"),
        ForeignKeyConstraint(
            ["org_id", "integration_id"],
            ["calendar_syncs.org_id", "calendar_syncs.integration_id"],
            ondelete="CASCADE",
        ),
        Index("ix_busy_periods_ends", "org_id", "integration_id", "ends_at"),
    )

    org_id: Mapped[OrgId] = mapped_column(primary_key=True)
    integration_id: Mapped[UUID] = mapped_column(primary_key=True)
    event_id: Mapped[str] = mapped_column(primary_key=True)
    starts_at: Mapped[datetime]
    ends_at: Mapped[datetime]


@dataclass(frozen=True, slots=True)
class Busy:
    """An event's id and its times."""

    event_id: str
    starts_at: datetime
    ends_at: datetime


def store_busy(session: Session, org_id: UUID, integration_id: UUID, periods: Sequence[Busy]) -> None:
    """Enter the periods, or their new times."""
    if not periods:
        return
    row = insert(BusyPeriod)
    session.execute(
        row.on_conflict_do_update(
            index_elements=[BusyPeriod.org_id, BusyPeriod.integration_id, BusyPeriod.event_id],
            set_={"starts_at": row.excluded.starts_at, "ends_at": row.excluded.ends_at},
        ),
        [
            {
                "org_id": org_id,
                "integration_id": integration_id,
                "event_id": one.event_id,
                "starts_at": one.starts_at,
                "ends_at": one.ends_at,
            }
            for one in periods
        ],
    )


def remove_busy(session: Session, org_id: UUID, integration_id: UUID, event_ids: Sequence[str]) -> None:
    """These events keep nobody busy any more; of a recurring one, none of its dates does."""
    if not event_ids:
        return
    series = func.regexp_replace(BusyPeriod.event_id, _INSTANCE, "")
    session.execute(
        delete(BusyPeriod).where(
            BusyPeriod.org_id == org_id,
            BusyPeriod.integration_id == integration_id,
            or_(BusyPeriod.event_id.in_(event_ids), series.in_(event_ids)),
        )
    )


def clear_busy(session: Session, org_id: UUID, integration_id: UUID, *, before: datetime | None = None) -> None:
    """Forget all, or only what was over ``before``."""
    gone = delete(BusyPeriod).where(BusyPeriod.org_id == org_id, BusyPeriod.integration_id == integration_id)
    session.execute(gone if before is None else gone.where(BusyPeriod.ends_at < before))


def list_busy(
    session: Session, org_id: UUID, integration_id: UUID, *, start: datetime, end: datetime
) -> list[tuple[datetime, datetime]]:
    """What overlaps the time between ``start`` and ``end``, by time."""
    rows = session.execute(
        select(BusyPeriod.starts_at, BusyPeriod.ends_at)
        .where(
            BusyPeriod.org_id == org_id,
            BusyPeriod.integration_id == integration_id,
            BusyPeriod.starts_at < end,
            BusyPeriod.ends_at > start,
        )
        .order_by(BusyPeriod.starts_at)
    )
    return [(row[0], row[1]) for row in rows]
