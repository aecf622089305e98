"""What the tests of the calendar both ways share: a connected calendar, bookings in it, and what became of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from flask.testing import FlaskClient
from sqlalchemy import text

from app.services import calendar_channels, calendar_sync
from app.services.platform import Platform
from sandbox.standins import RemoteWorld
from tests.integration.test_booking import ADA, tomorrow
from tests.people import Business

GRACE = "+4915187654321"
HALF_HOUR = timedelta(minutes=30)


@dataclass
class Desk:
    """One business with its calendar at Google, as somebody who sits at both sees it."""

    platform: Platform
    world: RemoteWorld
    business: Business
    client: FlaskClient
    settle: Callable[..., None]

    def open(self) -> None:
        """Read the calendar for the first time, and have a channel that has spoken."""
        calendar_sync.tend(self.platform)
        self.settle(lambda: self.one("SELECT synced_at FROM calendar_syncs"))
        calendar_channels.tend(self.platform)
        self.settle(lambda: self.one("SELECT heard_at FROM calendar_channels"))

    def book(self, hour: int, name: str = "Ada", phone: str = ADA) -> dict[str, Any]:
        """A caller books half an hour of tomorrow; the event that is in the calendar then."""
        said = self.business.tool(
            self.client,
            "book_appointment",
            call_id=f"call-{name}-{hour}",
            start=tomorrow(hour).isoformat(),
            name=name,
            phone=phone,
        )
        assert said.startswith("Booked for"), said
        self.settle(lambda: len(self.texts(phone)) == 1 and self.at_rest())
        return next(event for event in self.events() if event["summary"] == name)

    def drag(self, event: dict[str, Any], hour: int) -> None:
        """Somebody moves an event to another hour of tomorrow."""
        start = tomorrow(hour)
        self.world.move_event(self.business.calendar_id, event["id"], start, start + HALF_HOUR)

    def delete(self, event: dict[str, Any]) -> None:
        """Somebody deletes an event."""
        self.world.delete_event(self.business.calendar_id, event["id"])

    def enter(self, first: int, last: int, **fields: Any) -> dict[str, Any]:
        """Somebody enters an event from one hour of tomorrow to another."""
        return self.world.insert_foreign_event(self.business.calendar_id, tomorrow(first), tomorrow(last), **fields)

    def events(self) -> list[dict[str, Any]]:
        return self.world.events(self.business.calendar_id)

    def syncs(self) -> list[dict[str, Any]]:
        """The lists that were asked of Google; those without a token read everything."""
        return [asked for asked in self.world.requests("google", "list_events") if "pageToken" not in asked["query"]]

    def row(self, name: str = "Ada") -> Any:
        """The appointment of that name."""
        (found,) = self.all("SELECT * FROM appointments WHERE name = :name", name=name)
        return found

    def texts(self, phone: str = ADA) -> list[str]:
        """What Twilio was given for a number."""
        return [message["body"] for message in self.world.messages() if message["to"] == phone]

    def busy(self) -> list[Any]:
        """The mirror's periods: start and end."""
        return [(row[0], row[1]) for row in self.all("SELECT starts_at, ends_at FROM busy_periods ORDER BY 1")]

    def one(self, statement: str) -> Any:
        found = self.all(statement)
        return found[0][0] if found else None

    def all(self, statement: str, **values: Any) -> list[Any]:
        with self.platform.database.transaction(self.business.id) as session:
            return list(session.execute(text(statement), values).all())

    def at_rest(self) -> bool:
        """Whether everything that was planned for now is done."""
        waiting = (
            "SELECT count(*) FROM webhook_delivery_log WHERE finished_at IS NULL"
            " AND NOT (type IN ('appointment.finish', 'appointment.remind', 'message.check'))"
        )
        return bool(self.one(waiting) == 0)

    def sync(self) -> None:
        """See what changed, notified or not."""
        calendar_sync.request_now(self.platform, self.business.id)
        self.settle(self.at_rest)
