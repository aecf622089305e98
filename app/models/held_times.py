"""What our own appointments take: whose time, which seat, with what lies before and after. Reads alone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.models.appointments import Appointment


@dataclass(frozen=True, slots=True)
class Held:
    """What an appointment takes: a seat, from ``start`` to ``end`` with its buffers, itself from ``begins`` on."""

    id: UUID
    resource_id: UUID | None
    calendar_id: str
    seat: int
    start: datetime
    end: datetime
    begins: datetime
    ends: datetime


def held_periods(session: Session, org_id: UUID, *, start: datetime, end: datetime) -> list[Held]:
    """What our own appointments hold between ``start`` and ``end``, buffers included."""
    rows = session.execute(
        select(
            Appointment.id,
            Appointment.resource_id,
            Appointment.calendar_id,
            Appointment.seat,
            Appointment.holds_from,
            Appointment.holds_until,
            Appointment.starts_at,
            Appointment.ends_at,
        ).where(
            Appointment.org_id == org_id,
            Appointment.status.in_(("pending", "booked")),
            Appointment.holds_until > start,
            Appointment.holds_from < end,
        )
    )
    return [Held(*row) for row in rows]
