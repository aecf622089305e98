"""Changes in a calendar of which no notification came: asked for by the sync token that is kept.

Owns only the question. What is found is read by a sync like any other, which is planned here; the token is the sync's.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from app.errors import ResourceGone
from app.models.calendar_syncs import find_sync
from app.observability import metrics
from app.services import calendar_sync
from app.services.reconciliation.tally import Tally, Window

if TYPE_CHECKING:
    from app.services.directory import Endpoint
    from app.services.platform import Platform

PROVIDER = calendar_sync.PROVIDER
LATE = timedelta(minutes=20)  # a calendar is looked at every quarter of an hour anyway


def compare(platform: Platform, endpoint: Endpoint, window: Window, tally: Tally) -> None:
    """Compare one calendar. Raises what Google's client does."""
    calendar = calendar_sync.find_calendar(platform, endpoint.org_id, endpoint.integration_id)
    if calendar is None or window.org_id not in (None, endpoint.org_id):
        return
    with platform.database.transaction(endpoint.org_id) as session:
        known = find_sync(session, endpoint.org_id, endpoint.integration_id)
    if known is None or known.sync_token is None or known.calendar_id != calendar.credentials.calendar_id:
        _plan(platform, endpoint, window)
        return
    window.keep_going()
    try:
        changes = platform.google.list_changes(calendar.credentials, sync_token=known.sync_token)
    except ResourceGone:
        _plan(platform, endpoint, window)
        return
    late = datetime.now(UTC) - LATE
    missing = sum(event.updated is not None and event.updated < late for event in changes.events)
    tally.theirs += missing
    tally.missing += missing
    if missing:
        _plan(platform, endpoint, window)
        if not window.dry_run:
            tally.filled += missing
            metrics.reconciled(PROVIDER)


def _plan(platform: Platform, endpoint: Endpoint, window: Window) -> None:
    if window.dry_run:
        return
    with platform.database.transaction(endpoint.org_id) as session:
        calendar_sync.request(session, endpoint.org_id, endpoint.integration_id)
    platform.bell.ring()
