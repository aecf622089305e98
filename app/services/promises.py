"""What may be promised to a caller whose time is up: only what a row already holds.

Owns the one decision between the caller's thread, which may still be running, and the sentence.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING
from uuid import UUID

from app.errors import NotFound
from app.models.appointments import AppointmentStatus, lock_appointment
from app.models.messages import has_opted_out
from app.services.slots import Period

if TYPE_CHECKING:
    from app.services.directory import Business
    from app.services.platform import Platform


class Promise(Enum):
    """What is certain about an appointment at this moment."""

    NOTED = "noted"
    DONE = "done"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Kept:
    """The state, the time it is about, and whether the customer can be texted at all."""

    state: Promise
    period: Period
    reachable: bool


def promise(platform: Platform, business: Business, appointment_id: UUID) -> Kept:
    """Under the row's lock: done already, gone already, or noted, and then the outcome will be texted."""
    with platform.database.transaction(business.id) as session:
        row = lock_appointment(session, business.id, appointment_id)
        if row is None:
            raise NotFound("no such appointment")
        period = Period(row.starts_at, row.ends_at)
        reachable = row.phone is not None and not has_opted_out(session, business.id, row.phone)
        if row.status in (AppointmentStatus.FAILED, AppointmentStatus.CANCELLED):
            return Kept(Promise.GONE, period, reachable)
        if row.calendar_action is None:
            return Kept(Promise.DONE, period, reachable)
        row.promised_text = True
        return Kept(Promise.NOTED, period, reachable)
