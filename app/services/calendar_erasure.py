"""Takes a person's name out of an event in Google that has been entered for them.

Owns this one piece of the house's own work, planned when the person is erased. The event stays where it is: it is the
business's time, and only whose it is goes.
"""

from __future__ import annotations

from uuid import UUID

from app.errors import NotFound, ResourceGone
from app.integrations.google_calendar import GoogleCalendarCredentials
from app.models.appointments import find_appointment, lock_appointment
from app.models.persons import ERASED
from app.services.delivery import Skip, Work
from app.services.offers import HOUSE_CALENDAR


def erase_event(work: Work) -> Skip | None:
    """Handler of ``event.erase``. Safe to repeat; raises what Google's calendar does."""
    org_id = work.delivery.org_id
    appointment_id = UUID((work.delivery.body or {})["appointment_id"])
    with work.platform.database.transaction(org_id) as session:
        row = find_appointment(session, org_id, appointment_id)
    if row is None:
        return Skip("the appointment is gone")
    try:
        credentials = work.platform.directory.integration(org_id, "google-calendar").credentials
    except NotFound:
        return Skip("no calendar is connected")
    assert isinstance(credentials, GoogleCalendarCredentials)
    if row.resource_id is not None and row.calendar_id != HOUSE_CALENDAR:
        credentials = credentials.model_copy(update={"calendar_id": row.calendar_id})
    event_id = row.google_event_id or row.event_id
    work.confirm()
    try:
        event = work.platform.google.reword_event(credentials, event_id=event_id, summary=ERASED, description="")
    except ResourceGone:
        return Skip("the event is gone")
    with work.platform.database.transaction(org_id) as session:
        locked = lock_appointment(session, org_id, appointment_id)
        if locked is not None and locked.google_event_id == event_id:
            locked.google_etag, locked.google_updated_at = event.etag, event.updated
    return None
