"""What Google Calendar would send to a push channel: the handshake, and "something changed".

Owns the headers (Google Calendar API guide, "Receive push notifications"): the body is empty, and the
proof is the channel's token. Sends nothing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import count

from app.errors import InvalidInput
from app.services.simulate import Outgoing

EVENTS = ("sync", "changed")
CHANNEL_LIFE = timedelta(days=7)

_numbers = count(int(time.time()))  # increasing and not consecutive from one process to the next, as Google's


@dataclass(frozen=True, slots=True)
class Push:
    """One notification. A number of None is 1 for the handshake, else one higher than any before."""

    channel_id: str = "5b0c1e0e-6f5d-4c43-9d6b-1a7f0a7f2c11"
    resource_id: str = "simulated-resource-1"
    number: int | None = None
    calendar_id: str = "simulated@group.calendar.google.com"
    now: datetime = field(default_factory=lambda: datetime.now(UTC))


def request(event: str, push: Push, *, channel_token: str, url: str) -> Outgoing:
    """The whole POST. Raises InvalidInput for an unknown event."""
    if event not in EVENTS:
        raise InvalidInput(f"unknown event; known are {', '.join(EVENTS)}")
    number = push.number or (1 if event == "sync" else next(_numbers))
    headers = {
        "Content-Length": "0",
        "User-Agent": "APIs-Google; (+https://developers.google.com/webmasters/APIs-Google.html)",
        "X-Goog-Channel-ID": push.channel_id,
        "X-Goog-Channel-Token": channel_token,
        "X-Goog-Channel-Expiration": format_datetime(push.now + CHANNEL_LIFE, usegmt=True),
        "X-Goog-Resource-ID": push.resource_id,
        "X-Goog-Resource-URI": (f"https://www.googleapis.com/calendar/v3/calendars/{push.calendar_id}/events?alt=json"),
        "X-Goog-Resource-State": "sync" if event == "sync" else "exists",
        "X-Goog-Message-Number": str(number),
    }
    return Outgoing(url, headers, b"", frozenset({"X-Goog-Channel-Token"}))
