"""Appointments: the row comes first and holds the slot; the calendar is brought in line with it.

Owns the exclusion constraint (one seat with one person, room or calendar; overlapping times, with what
lies before and after; not cancelled) and the queries on the row. ``calendar_action`` says what the
calendar does not know yet; ``version`` counts what people decided.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    Computed,
    ForeignKeyConstraint,
    Index,
    SmallInteger,
    UniqueConstraint,
    exists,
    func,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import ExcludeConstraint
from sqlalchemy.orm import Mapped, Session, mapped_column

from app.models.base import Base, CreatedAt, Id, OrgId
from app.models.busy_periods import BusyPeriod


class AppointmentStatus(StrEnum):
    """``pending`` holds the slot and is not in the calendar yet; ``failed`` lost the slot before it was."""

    PENDING = "pending"
    BOOKED = "booked"
    CANCELLED = "cancelled"
    FAILED = "failed"


class CalendarAction(StrEnum):
    """What is still to be done in the calendar."""

    CREATE = "create"
    MOVE = "move"
    DELETE = "delete"


HOLDS_FROM = "(starts_at AT TIME ZONE 'UTC' - buffer_before * interval '1 minute') AT TIME ZONE 'UTC'"
HOLDS_UNTIL = "(ends_at AT TIME ZONE 'UTC' + buffer_after * interval '1 minute') AT TIME ZONE 'UTC'"
HOLDING = "status IN ('pending', 'booked') AND NOT external_conflict"


class Appointment(Base):
    """One appointment with one customer."""

    __tablename__ = "appointments"
    __table_args__ = (
        CheckConstraint("starts_at < ends_at", name="times"),
        CheckConstraint("status IN ('pending', 'booked', 'cancelled', 'failed')", name="status"),
        UniqueConstraint("org_id", "id"),
        UniqueConstraint("org_id", "call_id", "tool_call_id"),
        ExcludeConstraint(
            ("org_id", "="),
            (text("coalesce(resource_id::text, calendar_id)"), "="),
            ("seat", "="),
            (text("tstzrange(holds_from, holds_until)"), "&&"),
            name="ex_appointments_slot",
            where=text(HOLDING),
            using="gist",
        ),
        ForeignKeyConstraint(["org_id", "service_id"], ["services.org_id", "services.id"]),
        ForeignKeyConstraint(["org_id", "resource_id"], ["resources.org_id", "resources.id"]),
        Index("ix_appointments_service_id", "org_id", "service_id"),
        Index("ix_appointments_resource_id", "org_id", "resource_id"),
        Index("ix_appointments_org_starts", "org_id", "starts_at"),
        Index("ix_appointments_held", "org_id", "holds_until"),  # whoever asks of now on: those of the past stay
        Index("ix_appointments_phone", "org_id", "phone", "starts_at"),
        Index("ix_appointments_customer", "phone"),
        Index(
            "ix_appointments_conflicts",
            "ends_at",
            postgresql_where=text("external_conflict OR conflict_since IS NOT NULL"),
        ),
    )

    id: Mapped[Id]
    org_id: Mapped[OrgId]
    calendar_id: Mapped[str]
    starts_at: Mapped[datetime]
    ends_at: Mapped[datetime]
    service_id: Mapped[UUID | None]
    # with whom or where; None: with the business, in its calendar
    resource_id: Mapped[UUID | None]
    seat: Mapped[int] = mapped_column(SmallInteger, server_default="1")
    # minutes around it that nobody else may have, as its service had them when it was booked
    buffer_before: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    buffer_after: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    holds_from: Mapped[datetime] = mapped_column(Computed(HOLDS_FROM, persisted=True), nullable=True, deferred=True)
    holds_until: Mapped[datetime] = mapped_column(Computed(HOLDS_UNTIL, persisted=True), nullable=True, deferred=True)
    status: Mapped[str]
    name: Mapped[str]
    phone: Mapped[str | None]
    channel: Mapped[str] = mapped_column(server_default="sms")
    notes: Mapped[str | None]
    call_id: Mapped[str | None]
    tool_call_id: Mapped[str | None]
    version: Mapped[int] = mapped_column(SmallInteger, server_default="1")
    texted_version: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    promised_text: Mapped[bool] = mapped_column(server_default=text("false"))
    calendar_action: Mapped[str | None]
    creations: Mapped[int] = mapped_column(SmallInteger, server_default="1")
    creation_begun: Mapped[bool] = mapped_column(server_default=text("false"))
    google_event_id: Mapped[str | None]
    google_etag: Mapped[str | None]
    google_updated_at: Mapped[datetime | None]
    # where the calendar still has it while a move is not done, to go back to when the new time proves taken
    previous_starts_at: Mapped[datetime | None]
    previous_ends_at: Mapped[datetime | None]
    # dragged onto another booking in the calendar: both have the time, and this one excludes nobody
    external_conflict: Mapped[bool] = mapped_column(server_default=text("false"))
    # since when somebody else's event lies on top of it; it holds its slot all the same
    conflict_since: Mapped[datetime | None]
    failure: Mapped[str | None]
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[CreatedAt]

    @property
    def event_id(self) -> str:
        """The id of this appointment's event, derived, so that inserting it twice is one event.

        A deleted event keeps its id for ever, so each creation after the first has its own.
        Google allows a-v and 0-9, which hexadecimal is within.
        """
        return f"vd{self.id.hex}{self.creations}"


def find_appointment(session: Session, org_id: UUID, appointment_id: UUID) -> Appointment | None:
    """The appointment, read without a lock."""
    return session.scalar(select(Appointment).where(Appointment.org_id == org_id, Appointment.id == appointment_id))


def lock_appointment(session: Session, org_id: UUID, appointment_id: UUID) -> Appointment | None:
    """The appointment as it is now, locked until the transaction ends."""
    return session.scalar(
        select(Appointment)
        .where(Appointment.org_id == org_id, Appointment.id == appointment_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )


def wait_for_turn(session: Session, org_id: UUID) -> None:
    """Until this transaction ends no other of the organization takes a time.

    The exclusion constraint alone keeps seats apart, but two that write overlapping rows wait for each other, and
    PostgreSQL looks for that only after a second (``deadlock_timeout``), with somebody on the line.
    """
    session.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended('seats:' || CAST(:org AS text), 0))"), {"org": org_id}
    )


def find_by_tool_call(session: Session, org_id: UUID, *, call_id: str, tool_call_id: str) -> Appointment | None:
    """The appointment this very tool call made, however long ago."""
    return session.scalar(
        select(Appointment).where(
            Appointment.org_id == org_id, Appointment.call_id == call_id, Appointment.tool_call_id == tool_call_id
        )
    )


def upcoming_of(session: Session, org_id: UUID, phone: str, *, now: datetime) -> list[Appointment]:
    """The customer's appointments that still hold a slot, the next one first."""
    return list(
        session.scalars(
            select(Appointment)
            .where(
                Appointment.org_id == org_id,
                Appointment.phone == phone,
                Appointment.ends_at > now,
                or_(Appointment.status == "pending", Appointment.status == "booked"),
            )
            .order_by(Appointment.starts_at)
            .limit(20)
        )
    )


def lock_next(session: Session, org_id: UUID, phone: str, *, now: datetime) -> Appointment | None:
    """The customer's next appointment that holds a slot, locked; what changed before the lock was had counts."""
    for found in upcoming_of(session, org_id, phone, now=now):
        row = lock_appointment(session, org_id, found.id)
        if row is not None and row.status in (AppointmentStatus.PENDING, AppointmentStatus.BOOKED):
            return row
    return None


def list_appointments(session: Session, *, org_id: UUID | None = None, limit: int = 100) -> list[Appointment]:
    """The latest made first, at most ``limit``."""
    statement = select(Appointment).order_by(Appointment.created_at.desc()).limit(limit)
    return list(session.scalars(statement.where(Appointment.org_id == org_id) if org_id else statement))


def find_by_ids(session: Session, org_id: UUID, ids: Collection[UUID]) -> list[Appointment]:
    """Those of the appointments that are there, without a lock."""
    if not ids:
        return []
    return list(session.scalars(select(Appointment).where(Appointment.org_id == org_id, Appointment.id.in_(ids))))


def list_settled(
    session: Session, org_id: UUID, calendar_id: str, *, start: datetime, end: datetime
) -> list[Appointment]:
    """Booked ones between ``start`` and ``end`` that the calendar knows all about, as far as we know."""
    return list(
        session.scalars(
            select(Appointment).where(
                Appointment.org_id == org_id,
                Appointment.calendar_id == calendar_id,
                Appointment.status == AppointmentStatus.BOOKED,
                Appointment.calendar_action.is_(None),
                Appointment.google_event_id.is_not(None),
                Appointment.starts_at < end,
                Appointment.ends_at > start,
                Appointment.holds_until > start,
            )
        )
    )


def list_colliding(session: Session, org_id: UUID, calendar_id: str) -> list[UUID]:
    """Upcoming ones that were dragged onto another booking."""
    return list(
        session.scalars(
            select(Appointment.id).where(
                Appointment.org_id == org_id,
                Appointment.calendar_id == calendar_id,
                Appointment.external_conflict,
                Appointment.status.in_(("pending", "booked")),
                Appointment.ends_at > func.now(),
                Appointment.holds_until > func.now(),
            )
        )
    )


def mark_conflicts(session: Session, org_id: UUID, calendar_id: str, integration_id: UUID) -> list[UUID]:
    """Mark upcoming bookings that somebody else's event lies upon, unmark the others; return the newly marked."""
    overlapped = exists().where(
        BusyPeriod.org_id == org_id,
        BusyPeriod.integration_id == integration_id,
        BusyPeriod.starts_at < Appointment.ends_at,
        BusyPeriod.ends_at > Appointment.starts_at,
    )
    mine = (
        Appointment.org_id == org_id,
        Appointment.calendar_id == calendar_id,
        Appointment.ends_at > func.now(),
        Appointment.holds_until > func.now(),
    )
    certain = (Appointment.status == AppointmentStatus.BOOKED) & Appointment.calendar_action.is_(None)
    quietly = {"synchronize_session": False}
    session.execute(
        update(Appointment)
        .where(*mine, Appointment.conflict_since.is_not(None), ~(certain & overlapped))
        .values(conflict_since=None)
        .execution_options(**quietly)
    )
    marked = session.execute(
        update(Appointment)
        .where(*mine, Appointment.conflict_since.is_(None), certain, overlapped)
        .values(conflict_since=func.now())
        .returning(Appointment.id)
        .execution_options(**quietly)
    )
    return [row[0] for row in marked]


def list_conflicts(session: Session) -> list[tuple[UUID, UUID]]:
    """Upcoming bookings that something else has the time of, in the calendar: organization and appointment."""
    rows = session.execute(
        select(Appointment.org_id, Appointment.id)
        .where(
            or_(Appointment.external_conflict, Appointment.conflict_since.is_not(None)),
            Appointment.status.in_(("pending", "booked")),
            Appointment.ends_at > func.now(),
        )
        .order_by(Appointment.org_id, Appointment.starts_at)
        .limit(1000)
    )
    return [(row[0], row[1]) for row in rows]
