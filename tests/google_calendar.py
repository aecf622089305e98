"""One calendar and one person's consent to it, as the tests of the Google Calendar client use them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from app.integrations.google_calendar import CalendarEvent, GoogleCalendar, GoogleCalendarCredentials

CALENDAR = "desk@example.com"
TEN = datetime(2026, 12, 1, 10, tzinfo=UTC)
ELEVEN = TEN + timedelta(hours=1)
NOON = TEN + timedelta(hours=2)
EVENT = "abc123def456"


def consent(**changes: str) -> GoogleCalendarCredentials:
    given = {"refresh_token": "refresh", "client_id": "client", "client_secret": "secret", "calendar_id": CALENDAR}
    return GoogleCalendarCredentials.model_validate({**given, **changes})


def insert(
    google: GoogleCalendar, owner: GoogleCalendarCredentials, event_id: str = EVENT, **more: Any
) -> CalendarEvent:
    return google.insert_event(
        owner,
        event_id=event_id,
        start=TEN,
        end=ELEVEN,
        timezone="Europe/Berlin",
        summary="Cut and color",
        description="",
        private={"booking": "b1"},
        **more,
    )
