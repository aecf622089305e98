"""How we hear of what people do in a calendar: lists of changes, and channels that say there are some.

Owns those requests. A list is bounded in time and read to its last page; a channel ends by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from app.errors import ProviderUnavailable, ResourceGone
from app.integrations.breaker import protected
from app.integrations.deadline import Deadline
from app.integrations.google_calendar.calls import Calls
from app.integrations.google_calendar.credentials import GoogleCalendarCredentials
from app.integrations.google_calendar.failures import FULL_TIMEOUT_SECONDS
from app.integrations.google_calendar.resources import BrokenAnswer, CalendarEvent, Changes, read_event, write_moment

LISTING_LIMIT_SECONDS = 120.0
PAGE_SIZE = 500


@dataclass(frozen=True, slots=True)
class Channel:
    """A push channel as Google opened it; ``expires_at`` None: it did not say."""

    id: str
    resource_id: str
    expires_at: datetime | None


class ChangeCalls(Calls):
    """What changed, and who tells us. Errors are those of ``GoogleCalendar``."""

    def list_changes(
        self,
        credentials: GoogleCalendarCredentials,
        *,
        sync_token: str | None,
        since: datetime | None = None,
        until: datetime | None = None,
        timeout_seconds: float = FULL_TIMEOUT_SECONDS,
    ) -> Changes:
        """All that changed since ``sync_token``, or everything without one, deleted events as ``cancelled``.

        Without a token ``since`` and ``until`` bound what is listed; the token that comes with it keeps to
        that. Recurring events come as their instances. Each page is a try of its own; the whole takes two
        minutes at most. Raises ResourceGone when the token has expired: begin again without one.
        """
        ends = Deadline.within(LISTING_LIMIT_SECONDS)
        asked: dict[str, Any] = {"syncToken": sync_token}
        if sync_token is None:
            bounds = {"timeMin": since, "timeMax": until}
            asked = {name: write_moment(moment) for name, moment in bounds.items() if moment is not None}
        events: list[CalendarEvent] = []
        while True:
            page = self._list_page(credentials, asked, min(timeout_seconds, ends.remaining()))
            events += page["events"]
            if page["next_page"] is None:
                return Changes(events, page["next_sync"])
            asked["pageToken"] = page["next_page"]
            if ends.expired:
                raise ProviderUnavailable("listing the calendar takes too long", maybe_done=False)

    @protected("google_calendar_events")
    def watch_events(
        self,
        credentials: GoogleCalendarCredentials,
        *,
        channel_id: str,
        address: str,
        token: str,
        timeout_seconds: float = FULL_TIMEOUT_SECONDS,
    ) -> Channel:
        """Have Google post to ``address`` (https) whenever an event changes, with ``token`` as its proof.

        Its life is Google's to decide. Raises AlreadyExists or ProviderRefused for an id that was used before.
        """
        body = {"id": channel_id, "type": "web_hook", "address": address, "token": token}
        request = self._api.events().watch(calendarId=credentials.calendar_id, body=body)
        return self._ask(credentials, request, _read_channel, timeout_seconds, writes=True)

    @protected("google_calendar_events")
    def stop_channel(
        self,
        credentials: GoogleCalendarCredentials,
        *,
        channel_id: str,
        resource_id: str,
        timeout_seconds: float = FULL_TIMEOUT_SECONDS,
    ) -> None:
        """See that the channel says no more; one that is gone already is a success."""
        request = self._api.channels().stop(body={"id": channel_id, "resourceId": resource_id})
        try:
            self._ask(credentials, request, lambda _: None, timeout_seconds, writes=True)
        except ResourceGone:
            return

    @protected("google_calendar_events")
    def _list_page(
        self, credentials: GoogleCalendarCredentials, asked: dict[str, Any], timeout_seconds: float
    ) -> dict[str, Any]:
        request = self._api.events().list(
            calendarId=credentials.calendar_id, singleEvents=True, maxResults=PAGE_SIZE, **asked
        )
        return self._ask(credentials, request, _read_page, timeout_seconds)


def _read_page(answer: Any) -> dict[str, Any]:
    items = answer.get("items", []) if isinstance(answer, dict) else None
    if not isinstance(items, list):
        raise BrokenAnswer("not a page of events")
    return {
        "events": [read_event(item, zone=answer.get("timeZone")) for item in items],
        "next_page": answer.get("nextPageToken"),
        "next_sync": answer.get("nextSyncToken"),
    }


def _read_channel(answer: Any) -> Channel:
    if not isinstance(answer, dict) or not all(isinstance(answer.get(name), str) for name in ("id", "resourceId")):
        raise BrokenAnswer("not a channel")
    expires = str(answer.get("expiration") or "")
    moment = datetime.fromtimestamp(int(expires) / 1000, UTC) if expires.isdecimal() else None
    return Channel(answer["id"], answer["resourceId"], moment)
