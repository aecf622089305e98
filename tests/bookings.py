"""What the tests of booking rules share: asking as the assistant does, and what was booked."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from flask.testing import FlaskClient
from sqlalchemy import Row, text

from app.services.platform import Platform
from tests.people import Business

ADA = "+4915112345678"
BERLIN = ZoneInfo("Europe/Berlin")
BOOKED = """
    SELECT a.status, a.starts_at, a.ends_at, a.seat, a.holds_from, a.holds_until, r.name AS staff, s.name AS service
    FROM appointments a LEFT JOIN resources r ON r.id = a.resource_id LEFT JOIN services s ON s.id = a.service_id
    ORDER BY a.created_at
"""


def on(days: int, hour: int, minute: int = 0) -> datetime:
    """A local time so many days from now."""
    day = (datetime.now(BERLIN) + timedelta(days=days)).date()
    return datetime(day.year, day.month, day.day, hour, minute, tzinfo=BERLIN)


def book(client: FlaskClient, business: Business, start: datetime, call_id: str, **more: str) -> str:
    """Ask for an appointment; what is said to it."""
    given = {"name": "Ada", "phone": ADA, **more}
    return business.tool(client, "book_appointment", call_id=call_id, start=start.isoformat(), **given)


def free(client: FlaskClient, business: Business, start: datetime, end: datetime, **more: str) -> str:
    """Ask for free times; what is said to it."""
    return business.tool(
        client, "check_availability", call_id="look", start=start.isoformat(), end=end.isoformat(), **more
    )


def rows(platform: Platform, business: Business) -> list[Row[Any]]:
    """The appointments with their seats and names, in the order they were made."""
    with platform.database.transaction(business.id) as session:
        return list(session.execute(text(BOOKED)))
