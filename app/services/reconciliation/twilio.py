"""Texts that came to a number of ours, or news of texts of ours, of which Twilio never told.

Owns when a listed text is ours and when it is known: one that came in has a row with its SID, one that went out
is no further at Twilio than its row says. A text that went out and that no row owns is none of ours here: whether it
is an unknown's is ``message_settling``'s to say.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from app.errors import MalformedEvent
from app.integrations.events import InboundEvent
from app.integrations.twilio import ListedText, TwilioCredentials, as_inbound, as_status, moves_forward
from app.models.messages import consent_changed_at, known_texts
from app.services import routing
from app.services.reconciliation.tally import REMARK, Tally, Window, take_in

if TYPE_CHECKING:
    from app.services.directory import Endpoint
    from app.services.platform import Platform

PROVIDER = "twilio"
MOST = 2_000  # in one list
SHORTEST = timedelta(minutes=1)

Known = dict[str, tuple[UUID, str, str | None]]


def compare(platform: Platform, endpoint: Endpoint, window: Window, tally: Tally) -> None:
    """Compare one integration's accounts. Raises what Twilio's client does."""
    assert isinstance(endpoint.credentials, TwilioCredentials)
    for credentials in endpoint.credentials.of_each_account():
        for begin, end in window.slices():
            listed = _listed(platform, credentials, begin, end, window, tally)
            with platform.database.transaction(system=True) as session:
                known = known_texts(session, [text.sid for text in listed])
            listed.reverse()  # the oldest first: STOP and START count in their order
            for text in sorted(listed, key=lambda text: text.sent_at or end):
                if tally.meet(text.sid):
                    _compare_text(platform, endpoint, text, known, window, tally)


def _listed(
    platform: Platform, credentials: TwilioCredentials, begin: datetime, end: datetime, window: Window, tally: Tally
) -> list[ListedText]:
    """All texts of this time, the newest first; where there are too many for one list, by halves."""
    listed = platform.twilio.list_between(credentials, since=begin, until=end, most=MOST)
    if len(listed) < MOST:
        return listed
    if end - begin <= SHORTEST:
        tally.more = True
        return listed
    middle = begin + (end - begin) / 2
    window.keep_going()
    later = _listed(platform, credentials, middle, end, window, tally)
    window.keep_going()
    return later + _listed(platform, credentials, begin, middle, window, tally)


def _compare_text(
    platform: Platform, endpoint: Endpoint, text: ListedText, known: Known, window: Window, tally: Tally
) -> None:
    try:
        event = _missing_event(endpoint, text, known, window, tally)
    except MalformedEvent:
        tally.foreign += 1
        return
    if event is None:
        return
    owner, event = routing.route(platform, endpoint, replace(event, remark=REMARK))
    if window.org_id in (None, owner.org_id):
        event = _without_old_consent(platform, owner.org_id, event)
        take_in(platform, owner, event, tally, dry_run=window.dry_run)


def _missing_event(
    endpoint: Endpoint, text: ListedText, known: Known, window: Window, tally: Tally
) -> InboundEvent | None:
    """What should have been told of the text; None, and counted, when nothing is missing."""
    row = known.get(text.sid)
    if text.inbound and row is None and (endpoint.is_platform or _is_to(endpoint, text)):
        return as_inbound(text)
    if row is None or (not endpoint.is_platform and row[0] != endpoint.org_id):
        tally.foreign += 1
        return None
    if not text.inbound and moves_forward(row[2], text.status):
        return as_status(text)
    if window.org_id in (None, row[0]):
        tally.theirs += 1
        tally.ours += 1
    return None


def _is_to(endpoint: Endpoint, text: ListedText) -> bool:
    """Whether it came to a sender of this integration: other systems may use the same account."""
    credentials = endpoint.credentials
    assert isinstance(credentials, TwilioCredentials)
    number = text.recipient.rpartition(":")[2]
    by_service = credentials.messaging_service_sid is not None and text.service_sid == credentials.messaging_service_sid
    return by_service or number in (credentials.from_number, credentials.whatsapp_sender)


def _without_old_consent(platform: Platform, org_id: UUID, event: InboundEvent) -> InboundEvent:
    """A STOP or START that is older than the last word of its sender changes nothing any more."""
    if event.consent is None:
        return event
    with platform.database.transaction(system=True) as session:
        changed_at = consent_changed_at(session, org_id, event.consent.address)
    said_at = event.occurred_at or datetime.now(UTC)
    return replace(event, consent=None) if changed_at is not None and changed_at > said_at else event
