"""Organizations to load: made through the product's own services, connected to the stand-ins.

Owns their secrets as a provider knows them. Every fault has organizations of its own, so that its events,
texts and bookings can be told from those of others.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from threading import Lock
from uuid import UUID

from app.services import connections, organizations
from app.services.platform import Platform
from sandbox.standins import RemoteWorld

ACTOR = "chaos"
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
SLOT_MINUTES = 15
SLOTS_A_DAY = 92  # from midnight to eleven at night, within the opening hours
REGULARS = 3
_slots_lock = Lock()


@dataclass(slots=True)
class Regular:
    """A customer who gets numbered texts, one asked for after the other: their order can be seen from outside."""

    phone: str
    turn: Lock = field(default_factory=Lock, repr=False)
    asked: int = 0


@dataclass(slots=True, eq=False)
class Business:
    """An organization as providers know it."""

    id: UUID
    name: str
    number: str
    assistant_id: str
    vapi_path: str
    vapi_secret: str
    twilio_path: str
    account_sid: str
    auth_token: str
    calendar_id: str
    regulars: list[Regular]
    slots_given: int = 0

    def next_slot(self) -> datetime:
        """A time that nobody was given before, beginning tomorrow."""
        with _slots_lock:
            number, self.slots_given = self.slots_given, self.slots_given + 1
        day, slot = divmod(number, SLOTS_A_DAY)
        midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=2)
        return midnight + timedelta(days=day, minutes=slot * SLOT_MINUTES)


class Numbers:
    """Phone numbers, each given out once in a run."""

    def __init__(self, first: int) -> None:
        self._next = first
        self._lock = Lock()

    def draw(self) -> str:
        """A German mobile number."""
        with self._lock:
            self._next += 1
            return f"+49151{self._next % 10**8:08d}"


def found(platform: Platform, world: RemoteWorld, numbers: Numbers, name: str) -> Business:
    """An organization that is always open, with all three providers."""
    number = f"+4930{secrets.randbelow(10**8):08d}"
    account_sid, auth_token = "AC" + secrets.token_hex(16), secrets.token_hex(16)
    vapi_secret, assistant_id = secrets.token_hex(16), f"asst-{secrets.token_hex(4)}"
    calendar_id = f"{secrets.token_hex(8)}@group.calendar.google.com"
    client = {
        "client_id": secrets.token_hex(8),
        "client_secret": secrets.token_hex(8),
        "refresh_token": secrets.token_hex(8),
    }
    world.twilio_account(account_sid, auth_token, numbers=[number, f"whatsapp:{number}"])
    world.calendar(calendar_id)
    world.google_client(**client)
    org_id = UUID(organizations.create(platform, name=name, timezone="UTC", actor=ACTOR)["id"])
    hours = {day: [["00:00", "23:59"]] for day in DAYS}
    # Without reminders: each would be a text more, at a time that is not the run's.
    facts = {"number": number, "assistant": assistant_id, "slot": SLOT_MINUTES, "hours": hours, "reminders": False}
    organizations.change(platform, org_id, facts, actor=ACTOR)
    vapi = connections.add(platform, org_id, "vapi", {"webhook_secret": vapi_secret}, actor=ACTOR)
    texting = {"account_sid": account_sid, "auth_token": auth_token, "from_number": number}
    twilio = connections.add(platform, org_id, "twilio", texting, actor=ACTOR)
    calendar = {"calendar_id": calendar_id, "channel_token": secrets.token_hex(16), **client}
    connections.add(platform, org_id, "google-calendar", calendar, actor=ACTOR)
    return Business(
        id=org_id,
        name=name,
        number=number,
        assistant_id=assistant_id,
        vapi_path=f"/webhooks/vapi/{vapi['token']}",
        vapi_secret=vapi_secret,
        twilio_path=f"/webhooks/twilio/{twilio['token']}",
        account_sid=account_sid,
        auth_token=auth_token,
        calendar_id=calendar_id,
        regulars=[Regular(numbers.draw()) for _ in range(REGULARS)],
    )
