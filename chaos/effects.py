"""What the outside world has seen: texts at Twilio, events in Google's calendars, by whom they concern.

Owns the reading of the stand-ins' memory, and nothing of what should have been there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from chaos.people import Business
from sandbox.standins import RemoteWorld

CANCELLED = "cancelled"


@dataclass(frozen=True)
class Effects:
    """``texts``: bodies by account and recipient, in Twilio's order. ``events``: how many by calendar and start."""

    texts: dict[tuple[str, str], list[str]]
    events: dict[tuple[str, datetime], int]

    @property
    def seen(self) -> int:
        """How many there were in all."""
        return sum(map(len, self.texts.values())) + sum(self.events.values())

    def texts_to(self, business: Business, phone: str) -> list[str]:
        """What this customer was texted by this business."""
        return self.texts.get((business.account_sid, phone), [])

    def events_at(self, business: Business, start: datetime | None) -> int:
        """How many events begin then in the business's calendar."""
        return self.events.get((business.calendar_id, start), 0) if start else 0


def observe(world: RemoteWorld, businesses: Sequence[Business]) -> Effects:
    """All effects that concern these organizations, as they stand now."""
    accounts = {business.account_sid for business in businesses}
    texts: dict[tuple[str, str], list[str]] = defaultdict(list)
    for message in world.messages():
        if message["account_sid"] in accounts:
            texts[message["account_sid"], message["to"]].append(message["body"])
    events: dict[tuple[str, datetime], int] = defaultdict(int)
    for business in businesses:
        for event in world.events(business.calendar_id):
            if event["status"] != CANCELLED:
                events[business.calendar_id, datetime.fromisoformat(event["start"]["dateTime"])] += 1
    return Effects(dict(texts), dict(events))
