"""Calls that have ended at Vapi, and whose report never came.

Owns whose a listed call is and when one counts as known: its row has a report. One private key lists the calls of
one account, whatever integrations of ours stand behind it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from app.errors import ConfigurationError, NotFound
from app.integrations.events import InboundEvent
from app.integrations.vapi import VapiCall, report_event, routing_keys
from app.models.calls import complete_calls
from app.services import routing
from app.services.reconciliation.tally import REMARK, Tally, Window, take_in

if TYPE_CHECKING:
    from app.services.directory import Endpoint
    from app.services.platform import Platform

PROVIDER = "vapi"
LONGEST_CALL = timedelta(hours=2)  # a call is listed by its beginning and told of at its end
PAGE = 500
MOST_PAGES = 10  # of a piece of time


def compare(platform: Platform, endpoints: list[Endpoint], window: Window, tallies: dict[UUID, Tally]) -> None:
    """Compare, adding to the tallies by integration. Raises what Vapi's client does."""
    assert platform.vapi is not None
    for begin, end in window.slices(overlap=LONGEST_CALL):
        for page in _pages(platform, begin, end, window, tallies):
            _compare_page(platform, endpoints, page, window, tallies)


def _pages(
    platform: Platform, begin: datetime, end: datetime, window: Window, tallies: dict[UUID, Tally]
) -> Iterator[list[VapiCall]]:
    """The calls that began in this time, the newest first; pages overlap by a moment, so that none falls between."""
    assert platform.vapi is not None
    before = end
    for number in range(MOST_PAGES):
        if number:
            window.keep_going()
        page = platform.vapi.list_calls(
            limit=PAGE, created_after=begin - timedelta(milliseconds=1), created_before=before
        )
        yield page
        oldest = min((call.created_at for call in page if call.created_at), default=None)
        if len(page) < PAGE or oldest is None:
            return
        before = oldest + timedelta(milliseconds=1)
    for tally in tallies.values():
        tally.more = True


def _compare_page(
    platform: Platform, endpoints: list[Endpoint], page: list[VapiCall], window: Window, tallies: dict[UUID, Tally]
) -> None:
    owned: list[tuple[VapiCall, Endpoint, InboundEvent]] = []
    for call in page:
        if call.status != "ended" or call.ended_at is None or not window.since <= call.ended_at <= window.until:
            continue
        event = replace(report_event(call), remark=REMARK)
        endpoint, event = _owner(platform, endpoints, event)
        tally = tallies.get(endpoint.integration_id) if endpoint else None
        if endpoint is None or tally is None:
            for one in tallies.values():
                one.foreign += 1
                break
            continue
        if tally.meet(call.id) and window.org_id in (None, endpoint.org_id):
            owned.append((call, endpoint, event))
    if not owned:
        return
    with platform.database.transaction(system=True) as session:
        known = complete_calls(session, [(endpoint.org_id, call.id) for call, endpoint, _ in owned])
    for call, endpoint, event in reversed(owned):  # in the order in which they happened
        tally = tallies[endpoint.integration_id]
        if (endpoint.org_id, call.id) in known:
            tally.theirs += 1
            tally.ours += 1
        else:
            take_in(platform, endpoint, event, tally, dry_run=window.dry_run)


def _owner(platform: Platform, endpoints: list[Endpoint], event: InboundEvent) -> tuple[Endpoint | None, InboundEvent]:
    """By its keys; the platform's account keeps what is nobody's; a single integration needs no key."""
    owners = platform.directory.owners(routing_keys(event.payload)) if routing_keys(event.payload) else frozenset()
    if len(owners) == 1:
        try:
            return platform.directory.integration(next(iter(owners)), PROVIDER), event
        except (NotFound, ConfigurationError):
            return None, event
    for endpoint in endpoints:
        if endpoint.is_platform:
            return routing.route(platform, endpoint, event)
    return (endpoints[0], event) if len(endpoints) == 1 else (None, event)
