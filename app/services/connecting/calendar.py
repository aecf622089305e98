"""Whether Google shows us the calendar, and tells us what people change in it.

Owns what is expected of a calendar's connection. Nothing can be mended from here: a person shares a calendar, or
consents.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from app.errors import ResourceGone
from app.integrations.google_calendar import GoogleCalendarCredentials
from app.services.connecting.differences import Connection, Difference

if TYPE_CHECKING:
    from app.services.platform import Platform

PROVIDER = "google-calendar"


def compare(platform: Platform, connection: Connection) -> Iterable[Difference]:
    """Differences of the sign-in and of the calendar. Raises what Google's refusals and silences mean."""
    credentials = connection.credentials
    assert isinstance(credentials, GoogleCalendarCredentials)
    own = connection.businesses[0] if connection.org_id and connection.businesses else None
    if not credentials.can_ask:
        fix = f"integration connect google {connection.org_id}"
        yield Difference(connection, "the consent", "", "a consent, or a service account", fix, business=own)
        return
    now = datetime.now(UTC)
    try:
        platform.google.busy(credentials, start=now, end=now + timedelta(hours=1))
    except ResourceGone:
        fix = f"Share it with this account, or integration set {connection.integration_id} --set calendar_id=ID"
        yield Difference(connection, "the calendar", "not seen by this account", "a calendar", fix, business=own)
