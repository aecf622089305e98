"""Google's events.list: filters, pages, and sync tokens that expire.

Owns what a list shows and which parameters exclude each other (the discovery document of calendar v3
names them). Tokens are opaque to clients; here a sync token is a calendar's revision.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from typing import Any

from werkzeug.datastructures import MultiDict

from sandbox.standins.google_events import GoogleRefusal, empty_range, rfc3339, span
from sandbox.standins.google_store import shown

DEFAULT_PAGE, LARGEST_PAGE = 250, 2500
KEPT_PAGES = 1000
NOT_WITH_SYNC_TOKEN = (
    "iCalUID", "orderBy", "privateExtendedProperty", "q", "sharedExtendedProperty", "timeMin", "timeMax", "updatedMin",
)  # fmt: skip
# A list in another order or of searched events ends without a sync token; one bounded in time has one.
_NO_SYNC_TOKEN_AFTER = set(NOT_WITH_SYNC_TOKEN) - {"timeMin", "timeMax"}
Parameters = MultiDict[str, str]


class Listings:
    """Pages through calendars; a page token stands for what the first page's request selected."""

    def __init__(self) -> None:
        self._pages: OrderedDict[str, tuple[list[str], dict[str, Any]]] = OrderedDict()

    def page(self, calendar: dict[str, Any], asked: Parameters) -> dict[str, Any]:
        """One page as JSON; raise 400 for parameters that do not go together, 410 for an old sync token."""
        size = _size(asked)
        token = asked.get("pageToken")
        if token is None:
            remaining, context = self._select(calendar, asked)
        elif token in self._pages:
            remaining, context = self._pages[token]
        else:
            raise _invalid("pageToken", "Invalid page token value.")
        events = [calendar["events"][event_id] for event_id in remaining[:size]]
        answer = {
            "kind": "calendar#events",
            "etag": f'"p{calendar["revision"]}"',
            "summary": calendar["id"],
            "updated": max((event["updated"] for event in calendar["events"].values()), default=None),
            "timeZone": calendar["zone"],
            "accessRole": "owner",
            "defaultReminders": [],
            "items": [_item(event, incremental=context["incremental"]) for event in events],
        }
        if len(remaining) > size:
            answer["nextPageToken"] = self._keep(remaining[size:], context)
        elif context["sync_token"]:
            answer["nextSyncToken"] = context["sync_token"]
        return answer

    def _select(self, calendar: dict[str, Any], asked: Parameters) -> tuple[list[str], dict[str, Any]]:
        """The ids to show, in order. The sync token is of this moment: what changes later comes again."""
        given = asked.get("syncToken")
        if given is None:
            chosen = _filtered(calendar, asked)
            sync_token = "" if _NO_SYNC_TOKEN_AFTER.intersection(asked) else _sync_token(calendar)
        else:
            since = _revision_of(given, calendar, asked)
            changed = [event for event in calendar["events"].values() if event["revision"] > since]
            chosen = sorted(changed, key=lambda event: int(event["revision"]))
            sync_token = _sync_token(calendar)
        return [event["id"] for event in chosen], {"sync_token": sync_token, "incremental": given is not None}

    def _keep(self, remaining: list[str], context: dict[str, Any]) -> str:
        token = secrets.token_urlsafe(12)
        self._pages[token] = (remaining, context)
        if len(self._pages) > KEPT_PAGES:
            self._pages.popitem(last=False)
        return token


def _filtered(calendar: dict[str, Any], asked: Parameters) -> list[dict[str, Any]]:
    order = asked.get("orderBy")
    if order not in (None, "startTime", "updated") or (order == "startTime" and not _flag(asked, "singleEvents")):
        raise _invalid("orderBy", "The requested ordering is not available for the particular query.")
    tests = [*_time_tests(calendar, asked), *_property_tests(asked)]
    if not _flag(asked, "showDeleted"):
        tests.append(lambda event: bool(event["status"] != "cancelled"))
    if asked.get("iCalUID"):
        tests.append(lambda event: bool(event["iCalUID"] == asked["iCalUID"]))
    if asked.get("q"):
        words = asked["q"].lower().split()
        tests.append(lambda event: all(word in _searchable(event) for word in words))
    chosen = [event for event in calendar["events"].values() if all(test(event) for test in tests)]
    if order == "startTime":
        chosen.sort(key=lambda event: span(event, zone=calendar["zone"])[0])
    elif order == "updated":
        chosen.sort(key=lambda event: int(event["revision"]))
    return chosen


def _time_tests(calendar: dict[str, Any], asked: Parameters) -> list[Callable[[dict[str, Any]], bool]]:
    """timeMin bounds an event's end, timeMax its start, both exclusive."""
    bounds = {
        name: rfc3339(asked[name], location=name) for name in ("timeMin", "timeMax", "updatedMin") if name in asked
    }
    tests: list[Callable[[dict[str, Any]], bool]] = []
    if "timeMin" in bounds and "timeMax" in bounds and bounds["timeMax"] <= bounds["timeMin"]:
        raise empty_range("timeMax")
    if "timeMin" in bounds:
        tests.append(lambda event: span(event, zone=calendar["zone"])[1] > bounds["timeMin"])
    if "timeMax" in bounds:
        tests.append(lambda event: span(event, zone=calendar["zone"])[0] < bounds["timeMax"])
    if "updatedMin" in bounds:
        tests.append(lambda event: datetime.fromisoformat(event["updated"]) >= bounds["updatedMin"])
    return tests


def _property_tests(asked: Parameters) -> list[Callable[[dict[str, Any]], bool]]:
    tests: list[Callable[[dict[str, Any]], bool]] = []
    for group, name in (("private", "privateExtendedProperty"), ("shared", "sharedExtendedProperty")):
        for constraint in asked.getlist(name):
            key, separator, value = constraint.partition("=")
            if not separator:
                raise _invalid(name, "Invalid extended property constraint.")
            tests.append(
                lambda event, group=group, key=key, value=value: (  # type: ignore[misc]
                    event.get("extendedProperties", {}).get(group, {}).get(key) == value
                )
            )
    return tests


def _searchable(event: dict[str, Any]) -> str:
    return " ".join(event.get(name, "") for name in ("summary", "description", "location")).lower()


def _item(event: dict[str, Any], *, incremental: bool) -> dict[str, Any]:
    """Of a deleted event an incremental list guarantees the id alone, so it shows no more than it must."""
    if incremental and event["status"] == "cancelled":
        return {name: event[name] for name in ("kind", "etag", "id", "status")}
    return shown(event)


def _sync_token(calendar: dict[str, Any]) -> str:
    content = {"c": calendar["id"], "r": calendar["revision"], "g": calendar["generation"]}
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode()


def _revision_of(token: str, calendar: dict[str, Any], asked: Parameters) -> int:
    wrong = [name for name in NOT_WITH_SYNC_TOKEN if name in asked]
    if wrong:
        raise _invalid(wrong[0], f"Sync token cannot be used with the parameter {wrong[0]}.")
    if "showDeleted" in asked and not _flag(asked, "showDeleted"):
        raise _invalid("showDeleted", "showDeleted cannot be false together with a sync token.")
    try:
        content = json.loads(base64.urlsafe_b64decode(token))
        calendar_id, revision, generation = content["c"], int(content["r"]), content["g"]
    except (ValueError, KeyError, TypeError):
        raise _invalid("syncToken", "Invalid sync token value.") from None
    if calendar_id != calendar["id"]:
        raise _invalid("syncToken", "Invalid sync token value.")
    if generation != calendar["generation"]:
        message = "Sync token is no longer valid, a full sync is required."
        place = {"locationType": "parameter", "location": "syncToken"}
        raise GoogleRefusal(410, "fullSyncRequired", message, domain="calendar", **place)
    return revision


def _size(asked: Parameters) -> int:
    try:
        size = int(asked.get("maxResults", DEFAULT_PAGE))
    except ValueError:
        size = 0
    if size < 1:
        raise _invalid("maxResults", "Invalid value. Values must be within the range: [1, 2147483647]")
    return min(size, LARGEST_PAGE)


def _flag(asked: Parameters, name: str) -> bool:
    return asked.get(name, "false").lower() == "true"


def _invalid(parameter: str, message: str) -> GoogleRefusal:
    return GoogleRefusal(400, "invalid", message, locationType="parameter", location=parameter)
