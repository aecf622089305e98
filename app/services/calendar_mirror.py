"""The mirror of what people entered in the calendar: what keeps them busy, and what lies on a booking.

Owns which events count, and when the mirror may be believed. Keeps times alone. Calls nobody outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy.orm import Session

from app.errors import DatabaseUnavailable
from app.integrations.google_calendar import CalendarEvent
from app.models.appointments import mark_conflicts
from app.models.busy_periods import Busy, clear_busy, list_busy, remove_busy, store_busy
from app.models.calendar_syncs import Run, find_sync
from app.observability.logging import get_logger
from app.services.slots import Period

if TYPE_CHECKING:
    from app.services.directory import Endpoint
    from app.services.platform import Platform

BELIEVED_FOR = timedelta(hours=24)
KEEP_PAST = timedelta(days=1)
LOOK_UP_MS = 1_000  # somebody may be on the line

log = get_logger(__name__)


def apply(
    session: Session,
    run: Run,
    seen: Sequence[CalendarEvent],
    foreign: Sequence[CalendarEvent],
    *,
    calendar_id: str,
    anew: bool,
) -> None:
    """Enter what changed, or with ``anew`` everything there is, and mark the bookings that something lies upon.

    Of all that was ``seen`` only what is ``foreign`` can keep anybody busy. Applying it twice is the same as once.
    """
    past = datetime.now(UTC) - KEEP_PAST
    busy = {event.id: one for event in foreign if (one := _busy(event)) is not None and one.ends_at > past}
    if anew:
        clear_busy(session, run.org_id, run.integration_id)
    else:
        clear_busy(session, run.org_id, run.integration_id, before=past)
        remove_busy(session, run.org_id, run.integration_id, [event.id for event in seen if event.id not in busy])
    store_busy(session, run.org_id, run.integration_id, list(busy.values()))
    for appointment_id in mark_conflicts(session, run.org_id, calendar_id, run.integration_id):
        log.warning("calendar.conflict", org_id=str(run.org_id), appointment_id=str(appointment_id), by="foreign_event")


def busy(platform: Platform, endpoint: Endpoint, calendar_id: str, period: Period) -> list[Period] | None:
    """What the mirror knows to be busy; None when it is too old, of another calendar or does not reach so far."""
    try:
        with platform.database.transaction(endpoint.org_id, statement_timeout_ms=LOOK_UP_MS) as session:
            state = find_sync(session, endpoint.org_id, endpoint.integration_id)
            if state is None or state.synced_at is None or state.mirrored_until is None:
                return None
            age = datetime.now(UTC) - state.synced_at
            if age > BELIEVED_FOR or state.calendar_id != calendar_id or period.end > state.mirrored_until:
                return None
            found = list_busy(session, endpoint.org_id, endpoint.integration_id, start=period.start, end=period.end)
    except DatabaseUnavailable:
        return None
    log.info("calendar.mirror_asked", org_id=str(endpoint.org_id), age_seconds=round(age.total_seconds()))
    return [Period(start, end) for start, end in found]


def _busy(event: CalendarEvent) -> Busy | None:
    """The time an event takes from its calendar's owner, if any."""
    if event.status == "cancelled" or event.transparent or event.declined:
        return None
    if event.start is None or event.end is None or event.end <= event.start:
        return None
    return Busy(event.id, event.start, event.end)
