"""Push channels: each calendar has one that lasts, and its successor speaks before it falls silent.

Owns opening and stopping them. Google renews none: a new one is opened before the old one ends, and the old
one is stopped when the new one has been heard. Without an https address of ours there are none, and the
periodic sync is all.
"""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pydantic import SecretStr

from app.errors import PermanentFailure
from app.integrations.google_calendar import GoogleCalendarCredentials, new_channel_id
from app.models.calendar_syncs import find_sync, put_off
from app.models.calendars import (
    CalendarChannel,
    forget_ended,
    has_lasting,
    list_channels,
    list_superseded,
    list_unattended,
    mark_stopped,
    note_channel,
)
from app.models.integrations import find_integration, replace_sealed
from app.observability.logging import get_logger
from app.services import own_work
from app.services.calendar_sync import PROVIDER, Calendar, find_calendar
from app.services.delivery import Skip, Work
from app.services.directory import FRESH_SECONDS
from app.services.own_work import OwnWork
from app.services.readable import plain

if TYPE_CHECKING:
    from app.services.platform import Platform

LANE = "calendar-watch:"
LOOK_AGAIN = timedelta(minutes=10)  # a channel that could not be opened is tried again so much later
KEEP_ENDED = timedelta(days=7)
KNOWN_AFTER = timedelta(seconds=2 * FRESH_SECONDS)  # by then every process believes a new token
MOST_A_TICK = 20

log = get_logger(__name__)


def tend(platform: Platform) -> None:
    """Plan what channels need: a successor, an end; one process of all calls it, often."""
    if not _can_be_called(platform):
        return
    with platform.database.transaction(system=True) as session:
        unattended = list_unattended(session, lane_prefix=LANE, limit=MOST_A_TICK)
    for org_id, integration_id in unattended:
        calendar = find_calendar(platform, org_id, integration_id)
        after = timedelta(0)
        if calendar is not None and calendar.credentials.channel_token is None:
            _give_token(platform, integration_id)
            after = KNOWN_AFTER
        with platform.database.transaction(org_id) as session:
            put_off(session, org_id, integration_id, sync=None, watch=LOOK_AGAIN)
            if calendar is not None:
                own_work.plan(
                    session,
                    org_id,
                    OwnWork.WATCH_CALENDAR,
                    lane_key=f"{LANE}{integration_id}",
                    payload={"integration_id": str(integration_id)},
                    after=after,
                )
    if unattended:
        platform.bell.ring()


def attend(work: Work) -> Skip | None:
    """Open a channel if none lasts, stop those that have a successor. Safe to repeat.

    One that was opened and not noted, because of a crash, is noted by its own first push.
    """
    platform, org_id = work.platform, work.delivery.org_id
    integration_id = UUID((work.delivery.body or {})["integration_id"])
    calendar = find_calendar(platform, org_id, integration_id)
    if calendar is None or calendar.credentials.channel_token is None or not _can_be_called(platform):
        return Skip("this calendar needs no channel any more")
    calendar_id = calendar.credentials.calendar_id
    with platform.database.transaction(org_id) as session:
        lasting = has_lasting(session, org_id, integration_id, calendar_id=calendar_id)
        superseded = list_superseded(session, org_id, integration_id, calendar_id=calendar_id)
        forget_ended(session, org_id, integration_id, before=KEEP_ENDED)
    if not lasting:
        work.confirm()
        _open(platform, org_id, calendar)
    for channel in superseded:
        work.confirm()
        _stop(platform, calendar.credentials, channel)
    with platform.database.transaction(org_id) as session:
        put_off(session, org_id, integration_id, sync=None, watch=timedelta(0))
    return None


def channels(platform: Platform) -> list[dict[str, Any]]:
    """All push channels as plain data, with when their calendar was last read."""
    found: list[dict[str, Any]] = []
    with platform.database.transaction(system=True) as session:
        for channel in list_channels(session):
            state = find_sync(session, channel.org_id, channel.integration_id)
            found.append(
                {
                    "org_id": str(channel.org_id),
                    "integration_id": str(channel.integration_id),
                    "channel_id": channel.channel_id,
                    "expires_at": plain(channel.expires_at),
                    "heard_at": plain(channel.heard_at),
                    "stopped_at": plain(channel.stopped_at),
                    "synced_at": plain(state.synced_at) if state else None,
                }
            )
    return found


def _give_token(platform: Platform, integration_id: UUID) -> None:
    """A channel token for an integration that was connected without one; nobody needs to know it but Google."""
    with platform.database.transaction(system=True) as session:
        row = find_integration(session, integration_id)
        if row is None:
            return
        credentials = platform.vault.open(row.provider, row.credentials)
        token = SecretStr(secrets.token_urlsafe(32))
        sealed = platform.vault.seal(credentials.model_copy(update={"channel_token": token}))
        replace_sealed(session, integration_id, old=row.credentials, new=sealed)
    platform.directory.forget()


def _open(platform: Platform, org_id: UUID, calendar: Calendar) -> None:
    credentials = calendar.credentials
    assert credentials.channel_token is not None
    token = credentials.channel_token.get_secret_value()
    opened = platform.google.watch_events(
        credentials,
        channel_id=new_channel_id(token),
        address=f"{platform.settings.public_base_url}/webhooks/{PROVIDER}/{calendar.token}",
        token=token,
    )
    with platform.database.transaction(org_id) as session:
        note_channel(
            session,
            org_id,
            calendar.integration_id,
            channel_id=opened.id,
            resource_id=opened.resource_id,
            expires_at=opened.expires_at,
            heard=False,
            calendar_id=credentials.calendar_id,
        )
    log.info("calendar.channel_opened", org_id=str(org_id), channel_id=opened.id)


def _stop(platform: Platform, credentials: GoogleCalendarCredentials, channel: CalendarChannel) -> None:
    try:
        platform.google.stop_channel(credentials, channel_id=channel.channel_id, resource_id=channel.resource_id)
    except PermanentFailure as error:  # somebody else's, made by hand: it ends by itself
        log.warning("calendar.channel_not_stopped", org_id=str(channel.org_id), error_code=error.code)
    with platform.database.transaction(channel.org_id) as session:
        mark_stopped(session, channel.org_id, channel.integration_id, channel.channel_id)
    log.info("calendar.channel_stopped", org_id=str(channel.org_id), channel_id=channel.channel_id)


def _can_be_called(platform: Platform) -> bool:
    """Google posts to https alone."""
    return platform.settings.public_base_url.startswith("https://")
