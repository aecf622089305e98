"""The operations on Google Calendar: when is somebody busy, and our events in and out.

Owns the requests on events; what changed and channels are in ``changes.py``. Never retries: the ids of
events make an insert safe to repeat, and its caller decides when. How long a try may take is given by
the caller, who may be keeping somebody on the line.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from app.errors import ProviderRefused, ResourceGone
from app.integrations.breaker import protected
from app.integrations.deadline import Deadline
from app.integrations.google_calendar.changes import ChangeCalls
from app.integrations.google_calendar.credentials import GoogleCalendarCredentials
from app.integrations.google_calendar.failures import FULL_TIMEOUT_SECONDS, sort_calendar_error
from app.integrations.google_calendar.resources import (
    CANCELLED,
    BrokenAnswer,
    BusyPeriod,
    CalendarEvent,
    read_busy,
    read_event,
    write_moment,
)


class GoogleCalendar(ChangeCalls):
    """Calendar API v3 under one base URL, for any credentials. Thread-safe.

    Every operation raises CircuitOpen, ProviderUnavailable, ProviderThrottled, CredentialsRefused or
    ProviderRefused; DeadlineExceeded when given less than 2 s that were not enough. ``maybe_done`` is
    False on whatever only reads. Times given must be aware; ValueError otherwise.
    """

    @protected("google_calendar_freebusy")
    def busy(
        self,
        credentials: GoogleCalendarCredentials,
        *,
        start: datetime,
        end: datetime,
        timeout_seconds: float = FULL_TIMEOUT_SECONDS,
    ) -> list[BusyPeriod]:
        """When the calendar is busy between two moments, by time.

        A calendar Google cannot show is a failure (ResourceGone, ProviderUnavailable), never a free one.
        """
        calendar_id = credentials.calendar_id
        query = {"timeMin": write_moment(start), "timeMax": write_moment(end), "items": [{"id": calendar_id}]}
        request = self._api.freebusy().query(body=query)
        return self._ask(credentials, request, lambda answer: _read_free_busy(answer, calendar_id), timeout_seconds)

    @protected("google_calendar_events")
    def insert_event(
        self,
        credentials: GoogleCalendarCredentials,
        *,
        event_id: str,
        start: datetime,
        end: datetime,
        timezone: str,
        summary: str,
        description: str,
        private: dict[str, str],
        timeout_seconds: float = FULL_TIMEOUT_SECONDS,
    ) -> CalendarEvent:
        """Enter an event under an id of ours (``[a-v0-9]{5,1024}``); nobody is notified.

        Raises AlreadyExists when the id was used before, by this very insert, or by an event that was
        deleted since: a deleted event keeps its id for ever.
        """
        body = {
            "id": event_id,
            "summary": summary,
            "description": description,
            "start": {"dateTime": write_moment(start), "timeZone": timezone},
            "end": {"dateTime": write_moment(end), "timeZone": timezone},
            "extendedProperties": {"private": private},
        }
        request = self._api.events().insert(calendarId=credentials.calendar_id, body=body, sendUpdates="none")
        return self._ask(credentials, request, read_event, timeout_seconds, writes=True)

    @protected("google_calendar_events")
    def get_event(
        self,
        credentials: GoogleCalendarCredentials,
        *,
        event_id: str,
        timeout_seconds: float = FULL_TIMEOUT_SECONDS,
    ) -> CalendarEvent:
        """The event as it is; a deleted one comes back as ``cancelled``. Raises ResourceGone if it never was."""
        return self._get(credentials, event_id, timeout_seconds)

    @protected("google_calendar_events")
    def move_event(
        self,
        credentials: GoogleCalendarCredentials,
        *,
        event_id: str,
        start: datetime,
        end: datetime,
        etag: str | None = None,
        timeout_seconds: float = FULL_TIMEOUT_SECONDS,
    ) -> CalendarEvent:
        """Give the event another time and leave everything else; nobody is notified.

        With ``etag`` raises PreconditionFailed when the event has changed since. Raises ResourceGone
        when it was deleted, which Google answers with 404, 410 or a bare 403.
        """
        ends = Deadline.within(timeout_seconds)
        # date: null, because somebody may have made the event an all-day one, and patch merges.
        body = {
            "start": {"dateTime": write_moment(start), "date": None},
            "end": {"dateTime": write_moment(end), "date": None},
        }
        request = self._api.events().patch(
            calendarId=credentials.calendar_id, eventId=event_id, body=body, sendUpdates="none"
        )
        if etag is not None:
            request.headers["If-Match"] = etag
        try:
            return self._ask(credentials, request, read_event, timeout_seconds, writes=True)
        except ProviderRefused as refusal:
            if type(refusal) is ProviderRefused and self._is_deleted(credentials, event_id, ends):
                raise ResourceGone("the event was deleted", provider_code=refusal.provider_code) from None
            raise

    @protected("google_calendar_events")
    def reword_event(
        self,
        credentials: GoogleCalendarCredentials,
        *,
        event_id: str,
        summary: str,
        description: str,
        timeout_seconds: float = FULL_TIMEOUT_SECONDS,
    ) -> CalendarEvent:
        """Give the event other words and leave everything else; nobody is notified. Raises as ``move_event`` does."""
        ends = Deadline.within(timeout_seconds)
        body = {"summary": summary, "description": description}
        request = self._api.events().patch(
            calendarId=credentials.calendar_id, eventId=event_id, body=body, sendUpdates="none"
        )
        try:
            return self._ask(credentials, request, read_event, timeout_seconds, writes=True)
        except ProviderRefused as refusal:
            if type(refusal) is ProviderRefused and self._is_deleted(credentials, event_id, ends):
                raise ResourceGone("the event was deleted", provider_code=refusal.provider_code) from None
            raise

    @protected("google_calendar_events")
    def delete_event(
        self,
        credentials: GoogleCalendarCredentials,
        *,
        event_id: str,
        timeout_seconds: float = FULL_TIMEOUT_SECONDS,
    ) -> None:
        """See that the event is gone; one that is gone already, or never was, is a success."""
        request = self._api.events().delete(calendarId=credentials.calendar_id, eventId=event_id, sendUpdates="none")
        try:
            self._ask(credentials, request, lambda _: None, timeout_seconds, writes=True)
        except ResourceGone:
            return

    def _get(self, credentials: GoogleCalendarCredentials, event_id: str, timeout_seconds: float) -> CalendarEvent:
        request = self._api.events().get(calendarId=credentials.calendar_id, eventId=event_id)
        return self._ask(credentials, request, read_event, timeout_seconds)

    def _is_deleted(self, credentials: GoogleCalendarCredentials, event_id: str, ends: Deadline) -> bool:
        try:
            return self._get(credentials, event_id, max(ends.remaining(), 0.1)).status == CANCELLED
        except ResourceGone:
            return True


def _read_free_busy(answer: Any, calendar_id: str) -> list[BusyPeriod]:
    calendars = answer.get("calendars") if isinstance(answer, dict) else None
    if not isinstance(calendars, dict) or not calendars:
        raise BrokenAnswer("no calendars")
    # Google may answer under the calendar's address where "primary" was asked for; only one was.
    calendar = calendars.get(calendar_id) or next(iter(calendars.values()))
    if calendar.get("errors"):
        raise sort_calendar_error(calendar["errors"])
    return read_busy(calendar.get("busy"))
