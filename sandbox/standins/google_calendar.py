"""Google Calendar v3: freeBusy and events, served as Google serves them.

Owns routes, who may see which calendar, etags and what becomes of an event. The rules of one event are
in google_events.py, lists in google_listing.py, access tokens in google_oauth.py, push in google_channels.py.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from flask import Blueprint, Response, jsonify, request
from werkzeug.exceptions import BadRequest

from sandbox.standins import google_events as rules
from sandbox.standins.google_channels import PushChannels
from sandbox.standins.google_consent import ConsentPage
from sandbox.standins.google_events import GoogleRefusal
from sandbox.standins.google_listing import Listings
from sandbox.standins.google_oauth import TokenDesk
from sandbox.standins.google_store import (
    add_event,
    calendar_for,
    event_in,
    merged,
    new_event_id,
    replaced,
    save_event,
    shown,
    visible_calendar,
)
from sandbox.standins.state import State

MOST_CALENDARS = 50


class GoogleStandIn:
    """Google under the prefix ``/google``; its token endpoint also at ``/token``."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._desk = TokenDesk(state)
        self._consents = ConsentPage(state)
        self._listings = Listings()
        self._channels = PushChannels(state, self._desk)

    def blueprint(self) -> Blueprint:
        """The routes; the names of their functions are the operations that faults can be set for."""
        blueprint = Blueprint("google", __name__)
        for path in ("/token", "/google/token"):
            blueprint.add_url_rule(path, view_func=self._desk.issue_token, methods=["POST"])
        blueprint.add_url_rule("/google/o/oauth2/v2/auth", view_func=self._consents.ask_consent)
        base = "/google/calendar/v3"
        blueprint.add_url_rule(f"{base}/freeBusy", view_func=self.query_freebusy, methods=["POST"])
        events = f"{base}/calendars/<calendar_id>/events"
        blueprint.add_url_rule(events, view_func=self.insert_event, methods=["POST"])
        blueprint.add_url_rule(events, view_func=self.list_events)
        one = f"{events}/<event_id>"
        blueprint.add_url_rule(one, view_func=self.get_event)
        blueprint.add_url_rule(one, view_func=self.patch_event, methods=["PATCH"])
        blueprint.add_url_rule(one, view_func=self.update_event, methods=["PUT"])
        blueprint.add_url_rule(one, view_func=self.delete_event, methods=["DELETE"])
        self._channels.add_routes(blueprint, base)
        blueprint.register_error_handler(GoogleRefusal, _refuse)
        return blueprint

    def close(self) -> None:
        """Stop the notifications."""
        self._channels.close()

    def fault_response(self, status: int, retry_after: int | None) -> Response:
        """Google's own error body for 404, 405, 429 and 500."""
        refusal = {
            404: GoogleRefusal(404, "notFound", "Not Found"),
            405: GoogleRefusal(405, "httpMethodNotAllowed", "Method Not Allowed"),
            429: GoogleRefusal(429, "rateLimitExceeded", "Rate Limit Exceeded", domain="usageLimits"),
        }.get(status, GoogleRefusal(500, "backendError", "Backend Error"))
        response, _ = _refuse(refusal)
        response.status_code = status
        if retry_after is not None:
            response.headers["Retry-After"] = str(retry_after)
        return response

    # --- operations --------------------------------------------------------------------------

    def query_freebusy(self) -> Response:
        """POST freeBusy: a calendar that cannot be seen is an error inside a 200, not a free one."""
        with self._state.reading("google") as branch:
            principal = self._desk.principal(branch, "freebusy")
            body = _json()
            for edge in ("timeMin", "timeMax"):
                if not body.get(edge):
                    raise GoogleRefusal(400, "required", f"Missing {edge} parameter.")
            since, until = (rules.rfc3339(body[edge], location=edge) for edge in ("timeMin", "timeMax"))
            if until <= since:
                raise rules.empty_range("timeMax")
            zone = rules.timezone(body.get("timeZone") or "UTC")
            calendars: dict[str, Any] = {}
            for number, item in enumerate(body.get("items") or []):
                asked = item.get("id", "")
                calendar = visible_calendar(branch, asked, principal)
                if number >= MOST_CALENDARS:
                    calendars[asked] = _calendar_error("tooManyCalendarsRequested")
                elif calendar is None:
                    calendars[asked] = _calendar_error("notFound")
                else:
                    periods = rules.busy_periods(list(calendar["events"].values()), since, until, zone=calendar["zone"])
                    calendars[asked] = {"busy": [_period(period, zone) for period in periods]}
            return jsonify(
                {
                    "kind": "calendar#freeBusy",
                    "timeMin": _rfc3339(since, zone),
                    "timeMax": _rfc3339(until, zone),
                    "calendars": calendars,
                }
            )

    def insert_event(self, calendar_id: str) -> Response:
        """POST events: 409 also for the id of a deleted event; does not look for conflicts."""
        _check_send_updates()
        with self._state.changing("google") as branch:
            principal = self._desk.principal(branch, "write")
            calendar = calendar_for(branch, calendar_id, principal)
            body = _json()
            event_id = rules.check_event_id(body["id"]) if body.get("id") is not None else new_event_id()
            fields = rules.cleaned(body, zone=calendar["zone"])
            rules.check_times(fields, zone=calendar["zone"])
            _check_attendees(fields, branch, principal)
            if event_id in calendar["events"]:
                raise GoogleRefusal(409, "duplicate", "The requested identifier already exists.")
            added = add_event(calendar, event_id, fields, creator=principal)
            self._channels.announce(branch, calendar)
            return jsonify(shown(added))

    def get_event(self, calendar_id: str, event_id: str) -> Response:
        """GET one event; a deleted one is shown with status cancelled."""
        with self._state.reading("google") as branch:
            calendar = calendar_for(branch, calendar_id, self._desk.principal(branch, "read"))
            return jsonify(shown(event_in(calendar, event_id)))

    def list_events(self, calendar_id: str) -> Response:
        """GET a page of events, in full or what changed since a sync token."""
        with self._state.reading("google") as branch:
            calendar = calendar_for(branch, calendar_id, self._desk.principal(branch, "read"))
            return jsonify(self._listings.page(calendar, request.args))

    def patch_event(self, calendar_id: str, event_id: str) -> Response:
        """PATCH an event: what is given changes, null removes."""
        return self._rewrite(calendar_id, event_id, keep=True)

    def update_event(self, calendar_id: str, event_id: str) -> Response:
        """PUT an event: what is not given is gone."""
        return self._rewrite(calendar_id, event_id, keep=False)

    def delete_event(self, calendar_id: str, event_id: str) -> tuple[Response, int]:
        """DELETE an event: 204, and 410 when it is deleted already."""
        _check_send_updates()
        with self._state.changing("google") as branch:
            calendar = calendar_for(branch, calendar_id, self._desk.principal(branch, "write"))
            event = event_in(calendar, event_id)
            if event["status"] == "cancelled":
                raise GoogleRefusal(410, "deleted", "Resource has been deleted")
            _check_etag(event)
            save_event(calendar, event | {"status": "cancelled"})
            self._channels.announce(branch, calendar)
        return Response(status=204), 204

    def _rewrite(self, calendar_id: str, event_id: str, *, keep: bool) -> Response:
        _check_send_updates()
        with self._state.changing("google") as branch:
            principal = self._desk.principal(branch, "write")
            calendar = calendar_for(branch, calendar_id, principal)
            event = event_in(calendar, event_id)
            if event["status"] == "cancelled":
                # Seen in googleapis/google-api-ruby-client#1811.
                raise GoogleRefusal(403, "forbidden", "Forbidden")
            _check_etag(event)
            fields = rules.cleaned(_json(), zone=calendar["zone"])
            _check_attendees(fields, branch, principal)
            changed = merged(event, fields) if keep else replaced(event, fields)
            rules.check_times(changed, zone=calendar["zone"])
            if any(changed[edge] != event[edge] for edge in ("start", "end")):
                changed["sequence"] += 1
            self._channels.announce(branch, calendar)
            return jsonify(shown(save_event(calendar, changed)))

    # --- controls ----------------------------------------------------------------------------

    def controls(self) -> dict[str, Any]:
        """What tests may set and see."""
        return {
            "calendar": self._put_calendar,
            "google_client": self._desk.put_client,
            **self._consents.controls(),
            "service_account": self._desk.put_service_account,
            "revoke": self._desk.revoke,
            "expire_tokens": self._desk.expire_tokens,
            "expire_sync_tokens": self._expire_sync_tokens,
            "events": self._events,
            "insert_foreign_event": self._insert_foreign,
            "move_event": self._move,
            "delete_event": self._delete,
            **self._channels.controls(),
        }

    def _put_calendar(self, calendar_id: str, timezone: str = "UTC", shared_with: list[str] | None = None) -> None:
        rules.timezone(timezone)
        with self._state.changing("google") as branch:
            fresh = {"id": calendar_id, "events": {}, "revision": 0, "generation": 0}
            calendar = branch.setdefault("calendars", {}).setdefault(calendar_id, fresh)
            calendar.update(zone=timezone, shared_with=shared_with)

    def _expire_sync_tokens(self, calendar_id: str) -> None:
        with self._state.changing("google") as branch:
            branch["calendars"][calendar_id]["generation"] += 1

    def _events(self, calendar_id: str) -> list[dict[str, Any]]:
        with self._state.reading("google") as branch:
            return [shown(event) for event in branch["calendars"][calendar_id]["events"].values()]

    def _insert_foreign(self, calendar_id: str, start: str, end: str, **more: Any) -> dict[str, Any]:
        with self._state.changing("google") as branch:
            calendar = branch["calendars"][calendar_id]
            fields = _by_hand(start, end, calendar, {"summary": "Busy"} | more)
            self._channels.announce(branch, calendar)
            return shown(add_event(calendar, new_event_id(), fields, creator=calendar_id))

    def _move(self, calendar_id: str, event_id: str, start: str, end: str) -> dict[str, Any]:
        with self._state.changing("google") as branch:
            calendar = branch["calendars"][calendar_id]
            event = calendar["events"][event_id]
            fields = _by_hand(start, end, calendar)
            self._channels.announce(branch, calendar)
            return shown(save_event(calendar, event | fields | {"sequence": event["sequence"] + 1}))

    def _delete(self, calendar_id: str, event_id: str) -> None:
        with self._state.changing("google") as branch:
            calendar = branch["calendars"][calendar_id]
            save_event(calendar, calendar["events"][event_id] | {"status": "cancelled"})
            self._channels.announce(branch, calendar)


def _refuse(refusal: GoogleRefusal) -> tuple[Response, int]:
    return jsonify(refusal.body()), refusal.status


def _json() -> dict[str, Any]:
    try:
        body = request.get_json(force=True)
    except BadRequest:
        raise GoogleRefusal(400, "parseError", "Parse Error") from None
    if not isinstance(body, dict):
        raise GoogleRefusal(400, "parseError", "Parse Error")
    return body


def _check_send_updates() -> None:
    if request.args.get("sendUpdates", "none") not in ("all", "externalOnly", "none"):
        place = {"locationType": "parameter", "location": "sendUpdates"}
        raise GoogleRefusal(400, "invalidParameter", "Invalid value for sendUpdates.", **place)


def _check_etag(event: dict[str, Any]) -> None:
    wanted = request.headers.get("If-Match")
    if wanted not in (None, "*", event["etag"]):
        place = {"locationType": "header", "location": "If-Match"}
        raise GoogleRefusal(412, "conditionNotMet", "Precondition Failed", **place)


def _check_attendees(fields: dict[str, Any], branch: dict[str, Any], principal: str) -> None:
    if fields.get("attendees") and principal in branch.get("service_accounts", {}):
        message = "Service accounts cannot invite attendees without Domain-Wide Delegation of Authority."
        raise GoogleRefusal(403, "forbiddenForServiceAccounts", message, domain="calendar")


def _calendar_error(reason: str) -> dict[str, Any]:
    return {"errors": [{"domain": "global", "reason": reason}], "busy": []}


def _period(period: tuple[datetime, datetime], zone: ZoneInfo) -> dict[str, str]:
    return {"start": _rfc3339(period[0], zone), "end": _rfc3339(period[1], zone)}


def _rfc3339(moment: datetime, zone: ZoneInfo) -> str:
    return moment.astimezone(zone).isoformat().replace("+00:00", "Z")


def _by_hand(start: str, end: str, calendar: dict[str, Any], more: dict[str, Any] | None = None) -> dict[str, Any]:
    """Fields of what a person enters: ISO 8601 times, or dates for whole days; local ones in the calendar's zone."""
    edges = {
        edge: {"dateTime": text, "timeZone": calendar["zone"]} if "T" in text else {"date": text}
        for edge, text in (("start", start), ("end", end))
    }
    try:
        fields = rules.cleaned(edges | (more or {}), zone=calendar["zone"])
        rules.check_times(fields, zone=calendar["zone"])
    except GoogleRefusal as refusal:
        raise ValueError(refusal.message) from None
    return fields
