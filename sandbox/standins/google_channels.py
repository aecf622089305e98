"""Google's push channels: events.watch, channels.stop, and a POST to the address for each change.

Owns how long a channel lives, the headers of a notification, and that it is repeated only after a 5xx.
What changed is nobody's business here: a notification says "go and look".
"""

from __future__ import annotations

import secrets
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any
from urllib.parse import urlsplit

import requests
from flask import Blueprint, Response, jsonify, request

from sandbox.standins.google_events import GoogleRefusal
from sandbox.standins.google_oauth import TokenDesk
from sandbox.standins.google_store import calendar_for
from sandbox.standins.state import State, now

WEEK_SECONDS = 604_800.0
LONGEST_ID, LONGEST_TOKEN = 64, 256
THREADS = 4
POST_SECONDS = 10.0
PAUSES_SECONDS = (0.2, 1.0)  # before a notification is repeated
REPEATED_AFTER = {500, 502, 503, 504}
USER_AGENT = "APIs-Google; (+https://developers.google.com/webmasters/APIs-Google.html)"


class PushChannels:
    """The channels of all calendars, and the threads that post."""

    def __init__(self, state: State, desk: TokenDesk) -> None:
        self._state, self._desk = state, desk
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="google-push")
        self._closed = threading.Event()

    def add_routes(self, blueprint: Blueprint, base: str) -> None:
        """The two operations that faults can be set for: ``watch_events`` and ``stop_channel``."""
        watch = f"{base}/calendars/<calendar_id>/events/watch"
        blueprint.add_url_rule(watch, view_func=self.watch_events, methods=["POST"])
        blueprint.add_url_rule(f"{base}/channels/stop", view_func=self.stop_channel, methods=["POST"])

    def close(self) -> None:
        """Post nothing more."""
        self._closed.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def watch_events(self, calendar_id: str) -> Response:
        """POST watch: a channel with an id of the caller's, and its first notification, ``sync``."""
        with self._state.changing("google") as branch:
            principal = self._desk.principal(branch, "read")
            calendar = calendar_for(branch, calendar_id, principal)
            body = request.get_json(force=True, silent=True) or {}
            channels = branch.setdefault("channels", {})
            _check(body, channels)
            seconds = branch.get("pushes", {}).get("channel_seconds", WEEK_SECONDS)
            channel = {
                "id": body["id"],
                "token": body.get("token"),
                "address": body["address"],
                "calendar_id": calendar["id"],
                "resource_id": calendar.setdefault("resource_id", secrets.token_urlsafe(20)),
                "resource_uri": f"{request.url_root}calendar/v3/calendars/{calendar['id']}/events?alt=json",
                "principal": principal,
                "expires_at": time.time() + seconds,
                "number": 1,
                "stopped": False,
            }
            channels[channel["id"]] = channel
            self._post(branch, channel, "sync")
            return jsonify(
                {
                    "kind": "api#channel",
                    "id": channel["id"],
                    "resourceId": channel["resource_id"],
                    "resourceUri": channel["resource_uri"],
                    **({"token": channel["token"]} if channel["token"] else {}),
                    "expiration": str(int(channel["expires_at"] * 1000)),
                }
            )

    def stop_channel(self) -> Response:
        """POST channels/stop: 204, and 404 for a channel that is not (or no longer) there."""
        with self._state.changing("google") as branch:
            principal = self._desk.principal(branch, "read")
            body = request.get_json(force=True, silent=True) or {}
            channel = branch.get("channels", {}).get(body.get("id"))
            if channel is None or channel["resource_id"] != body.get("resourceId") or not _lives(channel):
                raise GoogleRefusal(404, "notFound", f"Channel '{body.get('id')}' not found for project")
            if channel["principal"] != principal:
                raise GoogleRefusal(403, "forbidden", "Forbidden")
            channel["stopped"] = True
        return Response(status=204)

    def announce(self, branch: dict[str, Any], calendar: dict[str, Any]) -> None:
        """Something changed in the calendar: tell every channel that lives. Call with the lock held."""
        for channel in branch.get("channels", {}).values():
            if channel["calendar_id"] == calendar["id"] and _lives(channel):
                channel["number"] += 1 + secrets.randbelow(3)  # Google's numbers grow, and leave some out
                self._post(branch, channel, "exists")

    # --- controls ----------------------------------------------------------------------------

    def controls(self) -> dict[str, Any]:
        """What tests may set and see."""
        return {
            "pushes": self._settings,
            "channels": self._channels,
            "notifications": self._notifications,
            "notify": self._notify,
        }

    def _settings(self, via: str | None = None, channel_seconds: float | None = None) -> None:
        with self._state.changing("google") as branch:
            settings = branch.setdefault("pushes", {})
            settings.update({"via": via} if via is not None else {})
            settings.update({"channel_seconds": channel_seconds} if channel_seconds is not None else {})

    def _channels(self, calendar_id: str) -> list[dict[str, Any]]:
        with self._state.reading("google") as branch:
            ours = [one for one in branch.get("channels", {}).values() if one["calendar_id"] == calendar_id]
            return [one | {"lives": _lives(one)} for one in ours]

    def _notifications(self) -> list[dict[str, Any]]:
        with self._state.reading("google") as branch:
            return list(branch.get("notifications", []))

    def _notify(self, calendar_id: str, times: int = 1) -> None:
        with self._state.changing("google") as branch:
            for _ in range(times):
                self.announce(branch, branch["calendars"][calendar_id])

    # --- posting -----------------------------------------------------------------------------

    def _post(self, branch: dict[str, Any], channel: dict[str, Any], resource_state: str) -> None:
        """Post soon, from a thread: the state is locked just now."""
        address, via = channel["address"], branch.get("pushes", {}).get("via")
        target = f"{via}{urlsplit(address).path}" if via else address
        headers = {
            "User-Agent": USER_AGENT,
            "Content-Type": "",
            "X-Goog-Channel-ID": channel["id"],
            "X-Goog-Channel-Expiration": format_datetime(
                datetime.fromtimestamp(channel["expires_at"], UTC), usegmt=True
            ),
            "X-Goog-Resource-ID": channel["resource_id"],
            "X-Goog-Resource-URI": channel["resource_uri"],
            "X-Goog-Resource-State": resource_state,
            "X-Goog-Message-Number": str(channel["number"]),
        }
        if channel["token"]:
            headers["X-Goog-Channel-Token"] = channel["token"]
        self._pool.submit(self._deliver, target, headers)

    def _deliver(self, target: str, headers: dict[str, str]) -> None:
        attempts, answer = 0, None
        while not self._closed.is_set():
            answer = _send(target, headers)
            attempts += 1
            if answer not in REPEATED_AFTER or attempts > len(PAUSES_SECONDS):
                break
            self._closed.wait(PAUSES_SECONDS[attempts - 1])
        made = {
            "channel_id": headers["X-Goog-Channel-ID"],
            "number": int(headers["X-Goog-Message-Number"]),
            "state": headers["X-Goog-Resource-State"],
            "answer": answer,
            "attempts": attempts,
            "at": now().isoformat(),
        }
        with self._state.changing("google") as branch:
            branch.setdefault("notifications", []).append(made)


def _send(target: str, headers: dict[str, str]) -> int | None:
    """The answer's status; None for no connection."""
    with requests.Session() as session:
        session.trust_env = False
        try:
            return session.post(
                target, data=b"", headers=headers, timeout=POST_SECONDS, allow_redirects=False
            ).status_code
        except requests.RequestException:
            return None


def _lives(channel: dict[str, Any]) -> bool:
    return not channel["stopped"] and channel["expires_at"] > time.time()


def _check(body: dict[str, Any], channels: dict[str, Any]) -> None:
    """Raise 400 for a channel that Google would not open."""
    channel_id, address, token = body.get("id"), body.get("address"), body.get("token")
    if not isinstance(channel_id, str) or not 1 <= len(channel_id) <= LONGEST_ID:
        raise GoogleRefusal(400, "required", "entity.id")
    if channel_id in channels:
        raise GoogleRefusal(400, "channelIdNotUnique", f"Channel id {channel_id} not unique")
    if body.get("type") not in ("web_hook", "webhook"):
        raise GoogleRefusal(400, "channelUnknown", "Unknown channel type")
    if not isinstance(address, str) or not address.startswith("https://"):
        raise GoogleRefusal(400, "push.webhookUrlNotHttps", f"WebHook callback must be HTTPS: {address}")
    if token is not None and (not isinstance(token, str) or len(token) > LONGEST_TOKEN):
        raise GoogleRefusal(400, "invalid", "Invalid value for: token")
