"""Google Calendar, which holds the appointments: its push messages in, its API out.

Owns the names the rest of the house may use. Each file beneath has one job: what an operator sets
(``credentials``), what Google's pushes say (``push``), who we are to Google (``tokens``), one request
that is sent once (``transport``), what failures mean (``failures``), the shapes of its answers
(``resources``) and the operations (``client``).
"""

from app.integrations.google_calendar.client import GoogleCalendar
from app.integrations.google_calendar.credentials import GoogleCalendarCredentials
from app.integrations.google_calendar.push import parse, verify
from app.integrations.google_calendar.resources import BusyPeriod, CalendarEvent, Changes

__all__ = [
    "BusyPeriod",
    "CalendarEvent",
    "Changes",
    "GoogleCalendar",
    "GoogleCalendarCredentials",
    "parse",
    "verify",
]
