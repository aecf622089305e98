"""What became of a text: news applied in any order, and the look-up of one whose fate is unknown.

Owns the rule "when in doubt, never twice": which texts at Twilio could be ours, and when absence is
proof enough to send again. Sends nothing itself.
"""

from __future__ import annotations

import unicodedata
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import func
from sqlalchemy.orm import Session

from app.errors import PermanentFailure, TemporaryFailure
from app.integrations.twilio import STATUS_RANK, SentMessage, TwilioCredentials
from app.models import messages as rows
from app.models.messages import Message, MessageStatus
from app.observability.logging import get_logger
from app.services.delivery import Postponed, Work

if TYPE_CHECKING:
    from app.services.directory import Endpoint
    from app.services.platform import Platform

LOOK_UP_TIMEOUT_SECONDS = 10.0
LONGEST_SEND_SECONDS = 10.0
GIVE_UP_LOOKING = timedelta(minutes=10)
NEEDED_LOOKUPS = 2
CLOCKS_DIFFER = timedelta(minutes=2)  # Twilio's clock and ours; older texts of ours have rows that own them
OPTED_OUT = "21610"  # Twilio docs, "Error and warning dictionary"
# Twilio answers a send with one of these; all mean "it is theirs now".
TWILIO_SENT = {"accepted", "scheduled", "queued", "sending", "sent"}

log = get_logger(__name__)


def apply_status(session: Session, message: Message, provider_status: str, error_code: str | None) -> None:
    """Apply Twilio's news to a locked row; what is not newer, or no fate of a text that goes out, changes nothing."""
    if provider_status not in STATUS_RANK:
        return
    status = MessageStatus.SENT if provider_status in TWILIO_SENT else MessageStatus(provider_status)
    if message.status == MessageStatus.PLANNED:  # news of a text that we had taken for not sent
        message.status = MessageStatus.SENDING
    if message.move(status):
        message.error_code = message.error = None  # whatever was not known before is known now
        message.provider_status = provider_status
    elif message.provider_status is None:
        message.provider_status = provider_status
    message.updated_at = func.now()
    if error_code and message.status in (MessageStatus.FAILED, MessageStatus.UNDELIVERED):
        message.error_code = error_code
        if error_code == OPTED_OUT:
            rows.record_opt_out(session, message.org_id, message.remote_address, source="provider")


def look_after(platform: Platform) -> timedelta:
    """How long a status callback is waited for before a text is looked up: by then nobody can still be sending it."""
    settings = platform.settings
    return timedelta(seconds=min(settings.unknown_lookup_seconds, settings.lease_seconds + LONGEST_SEND_SECONDS))


def settle_unknown(work: Work, message: Message) -> None:
    """A text found in ``sending``: look it up at Twilio, twice, before it is sent again; never guess.

    1 wait for its callback; 2 look among SIDs nobody owns; 3 exactly one fits: it is that one;
    4 several: a person must look; 5 none, twice: send again; 6 no answer for ten minutes: give up, openly.

    Raises Postponed while it waits, PermanentFailure when it cannot be told.
    """
    platform, org_id = work.platform, message.org_id
    between = timedelta(seconds=platform.settings.unknown_lookup_seconds)
    pause = between if message.looked_up_at else look_after(platform)
    with platform.database.transaction(org_id) as session:
        since_sent, waited = rows.waited_for(session, org_id, message.id)
    if waited < pause:
        raise Postponed("waiting for a status callback before looking it up", after=pause - waited)
    try:
        candidates = _find_candidates(platform, message, message.sending_since or message.created_at)
    except TemporaryFailure:
        if since_sent <= max(GIVE_UP_LOOKING, 4 * between):
            raise
        _leave_unknown(platform, org_id, message.id)
        raise PermanentFailure(
            "it cannot be told whether Twilio sent this text; it is not sent again", code="unknown"
        ) from None
    with platform.database.transaction(org_id) as session:
        row = rows.lock_message(session, org_id, message.id)
        if row is None or row.provider_sid is not None or row.status not in ("sending", "unknown"):
            return
        if len(candidates) == 1:
            row.provider_sid = candidates[0].sid
            apply_status(session, row, candidates[0].status or "queued", candidates[0].error_code)
            return
        if len(candidates) > 1:
            row.status = MessageStatus.UNKNOWN
            row.error_code, row.error = "unknown", "several texts at Twilio could be this one"
        else:
            row.lookups += 1
            row.looked_up_at = func.now()
            if row.lookups >= NEEDED_LOOKUPS:
                row.status = MessageStatus.PLANNED
                row.sending_since = None
    if len(candidates) > 1:
        log.error("message.unknown", message_id=str(message.id), org_id=str(org_id), candidates=len(candidates))
        raise PermanentFailure("several texts at Twilio could be this one; it is not sent again", code="unknown")
    again_now = message.lookups + 1 >= NEEDED_LOOKUPS
    raise Postponed("Twilio does not list it", after=timedelta(seconds=0.1) if again_now else between)


def _leave_unknown(platform: Platform, org_id: UUID, message_id: UUID) -> None:
    with platform.database.transaction(org_id) as session:
        row = rows.lock_message(session, org_id, message_id)
        if row is not None and row.status == MessageStatus.SENDING:
            row.status = MessageStatus.UNKNOWN
            row.error_code = "unknown"
            row.error = "it cannot be told whether Twilio sent this text"
    log.error("message.unknown", message_id=str(message_id), org_id=str(org_id))


def _find_candidates(platform: Platform, message: Message, since: datetime) -> list[SentMessage]:
    """Texts at Twilio to this address since then, with this body, whose SID no other row owns."""
    _, credentials = twilio_of(platform, message.org_id)
    listed = platform.twilio.list_sent(
        credentials,
        to=message.remote_address,
        channel=message.channel,
        since=since - CLOCKS_DIFFER,
        timeout_seconds=LOOK_UP_TIMEOUT_SECONDS,
    )
    # Of any organization: several may send through one account.
    with platform.database.transaction(system=True) as session:
        owned = rows.owned_sids(session, [text.sid for text in listed])
    ours = {credentials.from_number, credentials.whatsapp_sender, None}
    if credentials.messaging_service_sid is None:
        listed = [text for text in listed if text.sender in ours]
    if message.content_sid is not None:  # its body at Twilio is the approved template's, not ours
        return [text for text in listed if text.sid not in owned]
    wanted = _normal(message.body)
    return [text for text in listed if text.sid not in owned and wanted in _normal(text.body)]


def _normal(body: str) -> str:
    """The letters and digits of a body: Twilio may change all else (smart encoding), and a prefix may stay.

    Rather too little than too much to go by: a text that is not found is sent twice.
    """
    plain = unicodedata.normalize("NFKD", body).casefold()
    return "".join(letter for letter in plain if letter.isalnum())


def twilio_of(platform: Platform, org_id: UUID) -> tuple[Endpoint, TwilioCredentials]:
    """The organization's Twilio integration and its credentials. Raises NotFound."""
    endpoint = platform.directory.integration(org_id, "twilio")
    assert isinstance(endpoint.credentials, TwilioCredentials)
    return endpoint, endpoint.credentials
