"""When a calendar is busy while somebody waits: Google's own word, or the mirror's when Google is away.

Owns the order of the two, and says whose word it was. Changes nothing, and holds no transaction open
while it asks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from app.errors import NotFound, TemporaryFailure
from app.integrations.deadline import Deadline
from app.integrations.google_calendar import GoogleCalendarCredentials
from app.integrations.retrying import with_retries
from app.observability.logging import get_logger
from app.services import calendar_mirror
from app.services.slots import Period

if TYPE_CHECKING:
    from app.services.platform import Platform

TRY_SECONDS_WAITING = 2.0

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Known:
    """What is busy, and by whose word: ``google``, ``mirror``, or None when no calendar is connected."""

    periods: list[Period]
    source: str | None


def busy(
    platform: Platform, org_id: UUID, period: Period, *, deadline: Deadline, calendar_id: str | None = None
) -> Known:
    """When the organization's calendar, or another of the same account, is busy within the period.

    Google gets its share of the deadline once; then the mirror answers, if it can. Raises a
    TemporaryFailure when neither knows in time, PermanentFailure when Google refuses.
    """
    try:
        endpoint = platform.directory.integration(org_id, "google-calendar")
    except NotFound:
        return Known([], None)
    credentials = endpoint.credentials
    assert isinstance(credentials, GoogleCalendarCredentials)
    if calendar_id is not None:
        credentials = credentials.model_copy(update={"calendar_id": calendar_id})

    def ask() -> Known:
        try:
            seconds = deadline.try_timeout(TRY_SECONDS_WAITING)
            found = platform.google.busy(credentials, start=period.start, end=period.end, timeout_seconds=seconds)
        except TemporaryFailure as error:
            mirrored = calendar_mirror.busy(platform, endpoint, credentials.calendar_id, period)
            if mirrored is None:
                raise
            log.warning("availability.google_away", org_id=str(org_id), source="mirror", error_code=error.code)
            return Known(mirrored, "mirror")
        return Known([Period(one.start, one.end) for one in found], "google")

    return with_retries(ask, deadline=deadline, idempotent=True)
