"""Google Calendar, which holds the appointments: its push messages in, its API out.

Owns the names the rest of the house may use. Each file beneath has one job: what an operator sets
(``credentials``), what Google's pushes say (``push``), who we are to Google (``tokens``), one request
that is sent once (``transport``), what failures mean (``failures``), the shapes of its answers
(``resources``), a person's consent (``consent``), one request with its token (``calls``) and the operations
(``client``, ``changes``).
"""

from app.integrations.google_calendar.changes import Channel
from app.integrations.google_calendar.client import GoogleCalendar
from app.integrations.google_calendar.consent import Consents, OAuthClient
from app.integrations.google_calendar.credentials import GoogleCalendarCredentials
from app.integrations.google_calendar.push import new_channel_id, parse, verify
from app.integrations.google_calendar.resources import BusyPeriod, CalendarEvent, Changes

__all__ = [
    "BusyPeriod",
    "CalendarEvent",
    "Changes",
    "Channel",
    "Consents",
    "GoogleCalendar",
    "GoogleCalendarCredentials",
    "OAuthClient",
    "new_channel_id",
    "parse",
    "verify",
]
