"""The operations on Google Calendar: when is somebody busy, and our events in and out.

Owns the requests, made through google-api-python-client and its built-in description of the API.
Never retries: the ids of events make an insert safe to repeat, and its caller decides when. How long
a try may take is given by the caller, who may be keeping somebody on the line.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from http.client import HTTPException
from typing import Any, TypeVar
from urllib.parse import urlsplit

import google_auth_httplib2
import httplib2
from google.oauth2.credentials import Credentials
from googleapiclient.discovery import build
from googleapiclient.errors import HttpError

from app.errors import ProviderRefused, ProviderUnavailable, ResourceGone
from app.integrations.breaker import protected
from app.integrations.deadline import Deadline
from app.integrations.google_calendar.credentials import GoogleCalendarCredentials
from app.integrations.google_calendar.failures import (
    FULL_TIMEOUT_SECONDS,
    sort_answer,
    sort_calendar_error,
    sort_silence,
)
from app.integrations.google_calendar.resources import (
    CANCELLED,
    BrokenAnswer,
    BusyPeriod,
    CalendarEvent,
    Changes,
    read_busy,
    read_event,
    write_moment,
)
from app.integrations.google_calendar.tokens import GOOGLE_TOKEN_URI, AccessTokens
from app.integrations.google_calendar.transport import ThreadHttp

LISTING_LIMIT_SECONDS = 120.0
PAGE_SIZE = 500

# At WARNING it writes whole answers into the log, and those carry names and addresses.
logging.getLogger("googleapiclient.http").setLevel(logging.ERROR)

T = TypeVar("T")


class GoogleCalendar:
    """Calendar API v3 under one base URL, for any credentials. Thread-safe.

    Every operation raises CircuitOpen, ProviderUnavailable, ProviderThrottled, CredentialsRefused or
    ProviderRefused; DeadlineExceeded when given less than 2 s that were not enough. ``maybe_done`` is
    False on whatever only reads. Times given must be aware; ValueError otherwise.
    """

    def __init__(self, base_url: str) -> None:
        self._tokens = AccessTokens(_token_uri_beside(base_url))
        self._http = ThreadHttp()
        # Built once, from the description that comes with the package; each request brings its own
        # connection (github.com/googleapis/google-api-python-client, docs/thread_safety.md).
        self._api = build(
            "calendar",
            "v3",
            http=httplib2.Http(),
            client_options={"api_endpoint": base_url},
            cache_discovery=False,
            static_discovery=True,
        )

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

    def list_changes(
        self,
        credentials: GoogleCalendarCredentials,
        *,
        sync_token: str | None,
        timeout_seconds: float = FULL_TIMEOUT_SECONDS,
    ) -> Changes:
        """All that changed since ``sync_token``, or everything without one, deleted events as ``cancelled``.

        Recurring events come as their instances. Each page is a try of its own; the whole takes two
        minutes at most. Raises ResourceGone when the token has expired: begin again without one.
        """
        ends = Deadline.within(LISTING_LIMIT_SECONDS)
        events: list[CalendarEvent] = []
        page_token: str | None = None
        while True:
            page = self._list_page(credentials, sync_token, page_token, min(timeout_seconds, ends.remaining()))
            events += page["events"]
            page_token = page["next_page"]
            if page_token is None:
                return Changes(events, page["next_sync"])
            if ends.expired:
                raise ProviderUnavailable("listing the calendar takes too long", maybe_done=False)

    @protected("google_calendar_events")
    def _list_page(
        self,
        credentials: GoogleCalendarCredentials,
        sync_token: str | None,
        page_token: str | None,
        timeout_seconds: float,
    ) -> dict[str, Any]:
        tokens = {"syncToken": sync_token, "pageToken": page_token}
        request = self._api.events().list(
            calendarId=credentials.calendar_id,
            singleEvents=True,
            maxResults=PAGE_SIZE,
            **{name: token for name, token in tokens.items() if token is not None},
        )
        return self._ask(credentials, request, _read_page, timeout_seconds)

    def _get(self, credentials: GoogleCalendarCredentials, event_id: str, timeout_seconds: float) -> CalendarEvent:
        request = self._api.events().get(calendarId=credentials.calendar_id, eventId=event_id)
        return self._ask(credentials, request, read_event, timeout_seconds)

    def _is_deleted(self, credentials: GoogleCalendarCredentials, event_id: str, ends: Deadline) -> bool:
        try:
            return self._get(credentials, event_id, max(ends.remaining(), 0.1)).status == CANCELLED
        except ResourceGone:
            return True

    def _ask(
        self,
        credentials: GoogleCalendarCredentials,
        request: Any,
        read: Callable[[Any], T],
        timeout_seconds: float,
        *,
        writes: bool = False,
    ) -> T:
        """Send one request and read its answer, the access token and all within ``timeout_seconds``.

        A token that Google refuses (401: nothing was done) is replaced once.
        """
        ends = Deadline.within(timeout_seconds)
        http = self._http.get()
        for replaced in (False, True):
            token = self._tokens.get(credentials, http, ends.remaining(), of_seconds=timeout_seconds)
            http.begin(ends.remaining())
            bearer = Credentials(token)  # type: ignore[no-untyped-call]
            authorized = google_auth_httplib2.AuthorizedHttp(bearer, http=http, max_refresh_attempts=0)
            try:
                return read(request.execute(http=authorized, num_retries=0))
            except HttpError as error:
                if error.resp.status == 401:
                    self._tokens.drop(credentials, token)
                    if not replaced:
                        continue
                raise sort_answer(error.resp.status, error.resp, error.content, writes=writes) from None
            except (httplib2.HttpLib2Error, HTTPException, OSError, ValueError) as error:
                raise sort_silence(error, timeout_seconds, maybe_done=writes and http.sent) from None
        raise AssertionError("unreachable: the second refusal was raised")


def _read_free_busy(answer: Any, calendar_id: str) -> list[BusyPeriod]:
    calendars = answer.get("calendars") if isinstance(answer, dict) else None
    if not isinstance(calendars, dict) or not calendars:
        raise BrokenAnswer("no calendars")
    # Google may answer under the calendar's address where "primary" was asked for; only one was.
    calendar = calendars.get(calendar_id) or next(iter(calendars.values()))
    if calendar.get("errors"):
        raise sort_calendar_error(calendar["errors"])
    return read_busy(calendar.get("busy"))


def _read_page(answer: Any) -> dict[str, Any]:
    items = answer.get("items", []) if isinstance(answer, dict) else None
    if not isinstance(items, list):
        raise BrokenAnswer("not a page of events")
    return {
        "events": [read_event(item, zone=answer.get("timeZone")) for item in items],
        "next_page": answer.get("nextPageToken"),
        "next_sync": answer.get("nextSyncToken"),
    }


def _token_uri_beside(base_url: str) -> str:
    """Google's token endpoint; for a stand-in of Google, the one beside it."""
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    if host == "googleapis.com" or host.endswith(".googleapis.com"):
        return GOOGLE_TOKEN_URI
    return f"{parts.scheme}://{parts.netloc}/token"
