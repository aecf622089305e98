"""What an event and a time are to Google Calendar v3, and what it refuses in them.

Owns the rules of the event resource (developers.google.com/workspace/calendar/api/v3/reference/events)
and the shape of Google's errors. Keeps nothing: it is given events and gives events.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

# Fields a client may write; all others in a body are ignored, as Google ignores them.
WRITABLE = (
    "summary", "description", "location", "start", "end", "status", "transparency", "visibility", "colorId",
    "attendees", "reminders", "extendedProperties", "source", "guestsCanInviteOthers", "guestsCanModify",
    "guestsCanSeeOtherGuests", "anyoneCanAddSelf",
)  # fmt: skip
_CHOICES = {
    "status": {"confirmed", "tentative", "cancelled"},
    "transparency": {"opaque", "transparent"},
    "visibility": {"default", "public", "private", "confidential"},
}
_EVENT_ID = re.compile(r"[a-v0-9]{5,1024}")
_LONGEST_PROPERTY_KEY, _LONGEST_PROPERTY_VALUE = 44, 1024


class GoogleRefusal(Exception):
    """Google answers an error body with this HTTP status, reason and message."""

    def __init__(self, status: int, reason: str, message: str, domain: str = "global", **place: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message
        self.detail = {"domain": domain, "reason": reason, "message": message, **place}

    def body(self) -> dict[str, Any]:
        """The JSON of all Google's calendar errors."""
        return {"error": {"errors": [self.detail], "code": self.status, "message": self.message}}


def check_event_id(event_id: Any) -> str:
    """Return the id; raise 400 unless it is 5 to 1024 characters of base32hex."""
    if not isinstance(event_id, str) or not _EVENT_ID.fullmatch(event_id):
        raise GoogleRefusal(400, "invalid", "Invalid resource id value.")
    return event_id


def cleaned(body: Any, *, zone: str) -> dict[str, Any]:
    """The writable fields of a body, checked, with times in the calendar's zone. Null removes a field."""
    if not isinstance(body, dict):
        raise GoogleRefusal(400, "parseError", "Parse Error")
    if body.get("recurrence"):
        # Google would expand it; silently treating it as one event would be worse than refusing.
        raise GoogleRefusal(400, "invalid", "Recurring events are beyond this stand-in.")
    fields = {name: body[name] for name in WRITABLE if name in body}
    for name, choices in _CHOICES.items():
        if fields.get(name) is not None and fields[name] not in choices:
            raise GoogleRefusal(400, "invalid", f"Invalid value for: {fields[name]} is not a valid value")
    for name in ("summary", "description", "location"):
        if fields.get(name) is not None and not isinstance(fields[name], str):
            raise GoogleRefusal(400, "parseError", f"Invalid value for: {name} is not a string")
    if fields.get("extendedProperties") is not None:
        fields["extendedProperties"] = _properties(fields["extendedProperties"])
    for edge in ("start", "end"):
        if fields.get(edge) is not None:
            fields[edge] = _edge(fields[edge], edge, zone)
    return fields


def check_times(event: dict[str, Any], *, zone: str) -> None:
    """Raise 400 unless the event has a start and an end of one kind, in this order."""
    for edge in ("start", "end"):
        if not event.get(edge):
            raise GoogleRefusal(400, "required", f"Missing {edge} time.")
    if ("date" in event["start"]) != ("date" in event["end"]):
        raise GoogleRefusal(400, "invalid", "Start and end times must either both be date or both be dateTime.")
    starts, ends = span(event, zone=zone)
    if ends < starts or ("date" in event["start"] and ends == starts):
        raise empty_range("timeMax")


def span(event: dict[str, Any], *, zone: str) -> tuple[datetime, datetime]:
    """When the event begins and ends (exclusive), in UTC; a day begins at midnight of the calendar's zone."""
    starts, ends = (_moment(event[edge], zone) for edge in ("start", "end"))
    return starts, ends


def rfc3339(text: Any, *, location: str) -> datetime:
    """A moment with an offset, in UTC; raise 400 for anything else."""
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        moment = None
    if moment is None or moment.tzinfo is None or "T" not in text.upper():
        raise GoogleRefusal(400, "badRequest", "Bad Request", locationType="parameter", location=location)
    return moment.astimezone(UTC)


def empty_range(location: str) -> GoogleRefusal:
    """400 timeRangeEmpty."""
    message = "The specified time range is empty."
    return GoogleRefusal(400, "timeRangeEmpty", message, domain="calendar", locationType="parameter", location=location)


def timezone(name: Any) -> ZoneInfo:
    """An IANA zone; raise 400 for an unknown one."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, TypeError, ValueError):
        raise GoogleRefusal(400, "invalid", "Invalid time zone definition.") from None


def busy_periods(
    events: list[dict[str, Any]], since: datetime, until: datetime, *, zone: str
) -> list[tuple[datetime, datetime]]:
    """When a calendar is busy: neither cancelled nor transparent events count; what touches is one period."""
    spans = sorted(
        span(event, zone=zone)
        for event in events
        if event["status"] != "cancelled" and event.get("transparency") != "transparent"
    )
    merged: list[tuple[datetime, datetime]] = []
    for starts, ends in spans:
        if ends <= since or starts >= until or starts == ends:
            continue
        starts, ends = max(starts, since), min(ends, until)
        if merged and starts <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(ends, merged[-1][1]))
        else:
            merged.append((starts, ends))
    return merged


def _edge(value: Any, edge: str, zone: str) -> dict[str, Any]:
    """A start or an end as Google gives it back: a date, or a time in the calendar's zone."""
    if not isinstance(value, dict):
        raise GoogleRefusal(400, "parseError", "Parse Error")
    if value.get("date") and value.get("dateTime"):
        raise GoogleRefusal(400, "invalid", f"Invalid {edge} time.")
    named = value.get("timeZone")
    place = timezone(named) if named else None
    if value.get("date"):
        return {"date": _parsed(date.fromisoformat, value["date"], edge).isoformat()}
    if not value.get("dateTime"):
        raise GoogleRefusal(400, "required", f"Missing {edge} time.")
    moment = _parsed(datetime.fromisoformat, value["dateTime"], edge)
    if moment.tzinfo is None:
        if place is None:
            raise GoogleRefusal(400, "required", f"Missing time zone definition for {edge} time.")
        moment = moment.replace(tzinfo=place)
    local = moment.astimezone(ZoneInfo(zone)).isoformat(timespec="seconds").replace("+00:00", "Z")
    return {"dateTime": local, "timeZone": named or zone}


def _parsed(parse: Any, text: Any, edge: str) -> Any:
    try:
        return parse(text)
    except (TypeError, ValueError):
        raise GoogleRefusal(400, "invalid", f"Invalid {edge} time.") from None


def _moment(edge: dict[str, Any], zone: str) -> datetime:
    if "date" in edge:
        return datetime.combine(date.fromisoformat(edge["date"]), time(), ZoneInfo(zone)).astimezone(UTC)
    return datetime.fromisoformat(edge["dateTime"]).astimezone(UTC)


def _properties(groups: Any) -> dict[str, Any]:
    """Extended properties: names too long are dropped, values too long cut, as Google documents."""
    kept: dict[str, Any] = {}
    for group in ("private", "shared"):
        values = groups.get(group) if isinstance(groups, dict) else None
        if values is None:
            continue
        if not isinstance(values, dict) or not all(isinstance(value, str | None) for value in values.values()):
            raise GoogleRefusal(400, "parseError", f"Invalid value for: extendedProperties.{group}")
        kept[group] = {
            name: value if value is None else value[:_LONGEST_PROPERTY_VALUE]
            for name, value in values.items()
            if len(name) <= _LONGEST_PROPERTY_KEY
        }
    return kept
