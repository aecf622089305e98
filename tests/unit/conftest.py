"""What the tests of the Google Calendar client share: a client of the stand-in, and its owner's consent."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from app.integrations.breaker import circuits
from app.integrations.google_calendar import GoogleCalendar, GoogleCalendarCredentials
from sandbox.standins.world import RemoteWorld
from tests.google_calendar import CALENDAR, consent


@pytest.fixture
def google(world: RemoteWorld) -> Iterator[GoogleCalendar]:
    """A client, with all circuits closed, of a stand-in that has one calendar."""
    circuits.reset()
    world.calendar(CALENDAR, timezone="Europe/Berlin")
    world.google_client("client", "secret", "refresh")
    yield GoogleCalendar(world.google_url)
    circuits.reset()


@pytest.fixture
def owner(google: GoogleCalendar) -> GoogleCalendarCredentials:
    """A person's consent."""
    return consent()
