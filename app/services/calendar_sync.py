"""Going to see what changed in a calendar: many notifications, one sync at a time, and only what is new.

Owns when a sync is planned, begins and counts. What it finds goes to ``calendar_following.py`` (our events)
and ``calendar_mirror.py`` (all others). No transaction is open while Google is asked; the sync token is kept
in the same commit as what was read with it, so that a crash repeats and changes nothing by that.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy.orm import Session

from app.errors import ConfigurationError, NotFound, ResourceGone
from app.integrations.google_calendar import Changes, GoogleCalendarCredentials
from app.models.calendar_syncs import (
    Run,
    begin_sync,
    drop_token,
    finish_sync,
    list_due_syncs,
    lock_run,
    put_off,
    request_sync,
)
from app.observability.logging import get_logger
from app.services import calendar_mirror, own_work
from app.services.calendar_following import Follower, NewerRun
from app.services.delivery import Skip, Work
from app.services.own_work import OwnWork

if TYPE_CHECKING:
    from app.services.platform import Platform

PROVIDER = "google-calendar"
LANE = "calendar-sync:"
GAP = timedelta(seconds=5)  # between the beginnings of two syncs of one calendar: what comes meanwhile is one
EVERY = timedelta(minutes=15)  # for notifications that never come
JITTER = 0.2
FULL_EVERY = timedelta(days=7)  # so that the time that is looked at moves on
BEHIND, AHEAD = timedelta(days=1), timedelta(days=400)
MOST_A_TICK = 20

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Calendar:
    """An organization's calendar that we may ask. ``token`` is its endpoint's, where notifications go."""

    integration_id: UUID
    token: str
    credentials: GoogleCalendarCredentials


def find_calendar(platform: Platform, org_id: UUID, integration_id: UUID) -> Calendar | None:
    """The organization's calendar, if it still is this one, and its credentials can be read and do open the API."""
    try:
        endpoint = platform.directory.integration(org_id, PROVIDER)
    except NotFound:
        return None
    except ConfigurationError as error:  # sealed with a key that is gone: one organization's, and told elsewhere
        log.warning("calendar.not_readable", org_id=str(org_id), error_code=error.code)
        return None
    credentials = endpoint.credentials
    assert isinstance(credentials, GoogleCalendarCredentials)
    if endpoint.integration_id != integration_id or not credentials.can_ask:
        return None
    return Calendar(endpoint.integration_id, endpoint.token, credentials)


def request(session: Session, org_id: UUID, integration_id: UUID) -> int | None:
    """Plan a sync in the caller's transaction, the last thing in it; None when one is planned already.

    Ring after the commit.
    """
    asked = request_sync(session, org_id, integration_id, gap=GAP)
    if asked is None:
        return None
    return own_work.plan(
        session,
        org_id,
        OwnWork.SYNC_CALENDAR,
        lane_key=f"{LANE}{integration_id}",
        payload={"integration_id": str(integration_id), "requested_at": asked.at.isoformat()},
        due_at=asked.due_at,
    )


def request_now(platform: Platform, org_id: UUID) -> int | None:
    """The same for an organization's calendar, whoever asks; raises NotFound when it has none that we may read."""
    integration_id = platform.directory.integration(org_id, PROVIDER).integration_id
    if find_calendar(platform, org_id, integration_id) is None:
        raise NotFound("the organization's calendar is connected for notifications alone", code="not_connected")
    with platform.database.transaction(org_id) as session:
        planned = request(session, org_id, integration_id)
    platform.bell.ring()
    return planned


def tend(platform: Platform) -> None:
    """Plan a sync of calendars that nobody has spoken of for long; one process of all calls it, often."""
    with platform.database.transaction(system=True) as session:
        due = list_due_syncs(session, lane_prefix=LANE, limit=MOST_A_TICK)
    for org_id, integration_id in due:
        calendar = find_calendar(platform, org_id, integration_id)
        with platform.database.transaction(org_id) as session:
            if calendar is None:
                put_off(session, org_id, integration_id, sync=_soon(), watch=EVERY)
            else:
                request(session, org_id, integration_id)
    if due:
        platform.bell.ring()


def sync(work: Work) -> Skip | None:
    """See what changed, and let mirror and appointments follow. Safe to repeat at any point."""
    platform, org_id, body = work.platform, work.delivery.org_id, work.delivery.body or {}
    calendar = find_calendar(platform, org_id, UUID(body["integration_id"]))
    if calendar is None:
        return Skip("this calendar is not connected any more, or for notifications alone")
    credentials = calendar.credentials
    with platform.database.transaction(org_id) as session:
        run = begin_sync(
            session,
            org_id,
            calendar.integration_id,
            calendar_id=credentials.calendar_id,
            requested_at=datetime.fromisoformat(body["requested_at"]),
            full_every=FULL_EVERY,
        )
    if run is None:
        return Skip("all up to then is known already")
    try:
        _follow(platform, credentials, run)
    except NewerRun:
        return Skip("a newer sync has begun")
    platform.bell.ring()
    return None


def _follow(platform: Platform, credentials: GoogleCalendarCredentials, run: Run) -> None:
    changes, anew = _read(platform, credentials, run)
    follower = Follower(
        platform,
        platform.directory.business(run.org_id),
        run,
        credentials.calendar_id,
        lambda event_id: platform.google.get_event(credentials, event_id=event_id),
    )
    foreign = follower.follow(changes.events)
    if anew:
        follower.follow_unseen(changes.events, start=run.begun_at - BEHIND, end=run.begun_at + AHEAD)
    follower.end_collisions()
    with platform.database.transaction(run.org_id) as session:
        if not lock_run(session, run):
            raise NewerRun
        calendar_mirror.apply(session, run, changes.events, foreign, calendar_id=credentials.calendar_id, anew=anew)
        finish_sync(
            session,
            run,
            calendar_id=credentials.calendar_id,
            sync_token=changes.next_sync_token,
            mirrored_until=run.begun_at + AHEAD if anew else None,
            next_in=_soon(),
        )
    log.info("calendar.synced", org_id=str(run.org_id), events=len(changes.events), full=anew)


def _read(platform: Platform, credentials: GoogleCalendarCredentials, run: Run) -> tuple[Changes, bool]:
    """What changed; or everything, when there is no token or Google has forgotten it: then True."""
    if run.sync_token is not None:
        try:
            return platform.google.list_changes(credentials, sync_token=run.sync_token), False
        except ResourceGone:
            with platform.database.transaction(run.org_id) as session:
                drop_token(session, run)
            log.warning("calendar.token_expired", org_id=str(run.org_id))
    since, until = run.begun_at - BEHIND, run.begun_at + AHEAD
    return platform.google.list_changes(credentials, sync_token=None, since=since, until=until), True


def _soon() -> timedelta:
    return EVERY * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - so that not all come at once
