"""Where Google's calendars and their events are kept: one dictionary a calendar.

Owns revisions and etags, and that a deleted event stays, cancelled, with its id. Who may ask and what a
body may hold is decided before.
"""

from __future__ import annotations

import secrets
from typing import Any

from sandbox.standins.google_events import WRITABLE, GoogleRefusal
from sandbox.standins.state import now

_ID_ALPHABET = "0123456789abcdefghijklmnopqrstuv"
_FIRST_ETAG = 3_500_000_000_000_000


def visible_calendar(branch: dict[str, Any], calendar_id: str, principal: str) -> dict[str, Any] | None:
    """The calendar, when this principal may see it; ``primary`` is the principal's own."""
    wanted = principal if calendar_id == "primary" else calendar_id
    calendar: dict[str, Any] | None = branch.get("calendars", {}).get(wanted)
    if calendar is None or (calendar["shared_with"] is not None and principal not in calendar["shared_with"]):
        return None
    return calendar


def calendar_for(branch: dict[str, Any], calendar_id: str, principal: str) -> dict[str, Any]:
    """The calendar; raise 404, also when it exists and is not shared with the principal."""
    calendar = visible_calendar(branch, calendar_id, principal)
    if calendar is None:
        raise GoogleRefusal(404, "notFound", "Not Found")
    return calendar


def event_in(calendar: dict[str, Any], event_id: str) -> dict[str, Any]:
    """The event, cancelled or not; raise 404."""
    event: dict[str, Any] | None = calendar["events"].get(event_id)
    if event is None:
        raise GoogleRefusal(404, "notFound", "Not Found")
    return event


def new_event_id() -> str:
    """An id as Google makes them: 26 characters of base32hex."""
    return "".join(secrets.choice(_ID_ALPHABET) for _ in range(26))


def add_event(calendar: dict[str, Any], event_id: str, fields: dict[str, Any], *, creator: str) -> dict[str, Any]:
    """Put a new event into the calendar."""
    own = creator == calendar["id"]
    event = {name: value for name, value in fields.items() if value is not None}
    event |= {
        "kind": "calendar#event",
        "id": event_id,
        "status": fields.get("status") or "confirmed",
        "htmlLink": f"https://www.google.com/calendar/event?eid={event_id}",
        "created": _stamp(),
        "creator": {"email": creator} | ({"self": True} if own else {}),
        "organizer": {"email": calendar["id"], "self": True},
        "iCalUID": f"{event_id}@google.com",
        "sequence": 0,
        "reminders": fields.get("reminders") or {"useDefault": True},
        "eventType": "default",
    }
    return save_event(calendar, event)


def save_event(calendar: dict[str, Any], event: dict[str, Any]) -> dict[str, Any]:
    """Keep a changed event under a new revision, and so a new etag."""
    calendar["revision"] += 1
    event |= {
        "updated": _stamp(),
        "revision": calendar["revision"],
        "etag": f'"{_FIRST_ETAG + calendar["revision"] * 2}"',
    }
    calendar["events"][event["id"]] = event
    return event


def merged(event: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    """An event after a PATCH: extended properties are merged by name, null removes."""
    fields = dict(fields)
    if fields.get("extendedProperties"):
        groups = {name: dict(values) for name, values in event.get("extendedProperties", {}).items()}
        for name, values in fields["extendedProperties"].items():
            groups[name] = _without_null(groups.get(name, {}) | values)
        fields["extendedProperties"] = groups
    return _without_null(event | fields)


def replaced(event: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    """An event after a PUT: what was not given is gone."""
    kept = {name: value for name, value in event.items() if name not in WRITABLE}
    fresh = {"status": "confirmed", "reminders": {"useDefault": True}} | _without_null(fields)
    return merged(kept, fresh)


def shown(event: dict[str, Any]) -> dict[str, Any]:
    """An event as Google shows it."""
    return {name: value for name, value in event.items() if name != "revision"}


def _without_null(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _stamp() -> str:
    return now().strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
