"""What the senders of the front doors would send: made by each door's own module, which knows how it signs.

Owns the choice of the door. Sends nothing.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from app.errors import InvalidInput
from app.integrations.doors import DOORS
from app.services.simulate import Outgoing

EVENTS = {door.provider: door.events for door in DOORS.values()}


def request(provider: str, event: str, *, secret: str, url: str, age: timedelta = timedelta()) -> Outgoing:
    """The whole POST, signed ``age`` ago. Raises InvalidInput for an unknown event or a secret that cannot be one."""
    if event not in EVENTS[provider]:
        raise InvalidInput(f"unknown event; known are {', '.join(EVENTS[provider])}")
    try:
        made = DOORS[provider].sample(event, secret, datetime.now(UTC) - age)
    except ValueError as error:
        raise InvalidInput(f"secret: {error}") from None
    return Outgoing(url, made.headers, made.body)
