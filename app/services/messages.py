"""Texts: planned as a row, sent once, and moved forward by whatever news comes.

Owns the rule "when in doubt, never twice". A text is committed as ``sending`` before Twilio is asked;
one whose fate is unknown is settled by its status callback, or looked up among SIDs that no other row
owns, before anything is repeated.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy.orm import Session

from app.errors import (
    DeadlineExceeded,
    NotFound,
    PermanentFailure,
    ProviderRefused,
    ProviderUnavailable,
    RecipientOptedOut,
    TemporaryFailure,
)
from app.integrations.twilio import SentMessage, TwilioCredentials, conversation_lane
from app.models import messages as rows
from app.models.messages import Message, MessageStatus
from app.observability.logging import get_logger
from app.services import own_work
from app.services.delivery import Postponed, Work
from app.services.own_work import OwnWork

if TYPE_CHECKING:
    from app.services.directory import Endpoint
    from app.services.platform import Platform

SEND_TIMEOUT_SECONDS = 10.0
GIVE_UP_LOOKING = timedelta(minutes=10)
NEEDED_LOOKUPS = 2
# Twilio answers a send with one of these; all mean "it is theirs now".
_TWILIO_SENT = {"accepted", "scheduled", "queued", "sending", "sent"}

log = get_logger(__name__)


def plan_text(
    session: Session,
    org_id: UUID,
    *,
    to: str,
    body: str,
    channel: str,
    idempotency_key: str,
    purpose: str,
    appointment_id: UUID | None = None,
    call_id: str | None = None,
) -> UUID | None:
    """Plan one text in the caller's transaction; ring after its commit. None when its key was planned before.

    A recipient who has opted out gets a row that says so, and nothing is planned.
    """
    refused = rows.has_opted_out(session, org_id, to)
    message_id = rows.insert_message(
        session,
        org_id=org_id,
        direction="outbound",
        channel=channel,
        remote_address=to,
        body=body,
        status=MessageStatus.REFUSED if refused else MessageStatus.PLANNED,
        error_code="opted_out" if refused else None,
        error="the recipient has opted out" if refused else None,
        idempotency_key=idempotency_key,
        purpose=purpose,
        appointment_id=appointment_id,
        call_id=call_id,
    )
    if message_id is not None and not refused:
        own_work.plan(
            session,
            org_id,
            OwnWork.SEND_MESSAGE,
            lane_key=conversation_lane(to),
            payload={"message_id": str(message_id)},
        )
    return message_id


def send(work: Work) -> None:
    """Handler of ``message.send``: send the text, or find out what became of an earlier try. Safe to repeat."""
    platform, org_id = work.platform, work.delivery.org_id
    message_id = UUID(_body(work)["message_id"])
    message = _take(platform, org_id, message_id)
    if message is None:
        return
    if message.status != MessageStatus.PLANNED:
        _settle_unknown(work, message)
        return
    endpoint, credentials = _twilio(platform, org_id)
    work.confirm()
    if not _mark_sending(platform, org_id, message_id):
        return
    try:
        sent = platform.twilio.send(
            credentials,
            channel=message.channel,
            to=message.remote_address,
            body=message.body,
            status_callback=status_callback_url(platform, endpoint, message_id),
            timeout_seconds=SEND_TIMEOUT_SECONDS,
        )
    except TemporaryFailure as error:
        if isinstance(error, ProviderUnavailable | DeadlineExceeded) and error.maybe_done:
            raise Postponed("it is not known whether Twilio sent it", after=_look_after(platform)) from error
        _back_to_planned(platform, org_id, message_id)
        raise
    except PermanentFailure as error:
        _refuse(platform, org_id, message_id, error)
        raise
    _merge_sent(platform, org_id, message_id, sent)


def status_callback_url(platform: Platform, endpoint: Endpoint, message_id: UUID) -> str:
    """Where Twilio reports on this very row: known before the SID is, and signed as part of the URL."""
    return f"{platform.settings.public_base_url}/webhooks/twilio/{endpoint.token}/status?m={message_id}"


def record_status(work: Work) -> str | None:
    """Apply a status callback to its text; return why nothing was applied, or None. Order does not matter.

    Raises TemporaryFailure while no row has the SID: the send may not have been committed yet.
    """
    news = _body(work)["_"]
    org_id = work.delivery.org_id
    with work.platform.database.transaction(org_id) as session:
        message = None
        if news.get("message_id"):
            message = rows.lock_message(session, org_id, UUID(news["message_id"]))
        if message is None:
            message = rows.lock_message_by_sid(session, org_id, news["message_sid"])
        if message is None:
            if work.delivery.attempts < 2:
                raise TemporaryFailure("no text has this SID yet", code="unknown_message")
            return "no text of ours has this SID"
        if message.direction != "outbound":
            return "the SID is of a text that came in"
        if message.provider_sid not in (None, news["message_sid"]):
            return "the text has another SID; the first one stands"
        message.provider_sid = news["message_sid"]
        _apply_status(session, message, news["status"], news.get("error_code"))
    return None


def record_inbound(session: Session, work: Work) -> Message | None:
    """Store a text that came in; None when it had been stored before (its SID is its natural key)."""
    news = _body(work)["_"]
    message_id = rows.insert_message(
        session,
        org_id=work.delivery.org_id,
        direction="inbound",
        channel=news["channel"],
        remote_address=news["address_from"],
        own_address=news["address_to"],
        body=news["body"],
        media=news.get("media") or [],
        status=MessageStatus.RECEIVED,
        provider_sid=news["message_sid"],
        profile_name=news.get("profile_name"),
    )
    return rows.lock_message(session, work.delivery.org_id, message_id) if message_id else None


def _take(platform: Platform, org_id: UUID, message_id: UUID) -> Message | None:
    """The text as it stands, detached; None when there is nothing left to send."""
    with platform.database.transaction(org_id) as session:
        message = rows.lock_message(session, org_id, message_id)
        if message is None:
            raise NotFound("no such text")
        if message.status not in (MessageStatus.PLANNED, MessageStatus.SENDING, MessageStatus.UNKNOWN):
            return None
        if message.status != MessageStatus.PLANNED and message.provider_sid:
            message.move(MessageStatus.SENT)
            return None
        return message


def _mark_sending(platform: Platform, org_id: UUID, message_id: UUID) -> bool:
    """Commit that Twilio is about to be asked; False when the recipient has opted out meanwhile."""
    with platform.database.transaction(org_id) as session:
        message = rows.lock_message(session, org_id, message_id)
        if message is None or message.status != MessageStatus.PLANNED:
            return False
        if rows.has_opted_out(session, org_id, message.remote_address):
            message.status = MessageStatus.REFUSED
            message.error_code, message.error = "opted_out", "the recipient has opted out"
            return False
        message.status = MessageStatus.SENDING
        message.sending_since = datetime.now(UTC)
        message.sends += 1
        message.lookups = 0
        message.looked_up_at = None
    return True


def _back_to_planned(platform: Platform, org_id: UUID, message_id: UUID) -> None:
    """The request certainly had no effect: it may be made again."""
    with platform.database.transaction(org_id) as session:
        message = rows.lock_message(session, org_id, message_id)
        if message is not None and message.provider_sid is None and message.status in ("sending", "unknown"):
            message.status = MessageStatus.PLANNED
            message.sending_since = None


def _refuse(platform: Platform, org_id: UUID, message_id: UUID, error: PermanentFailure) -> None:
    with platform.database.transaction(org_id) as session:
        message = rows.lock_message(session, org_id, message_id)
        if message is None or message.provider_sid is not None:
            return
        opted_out = isinstance(error, RecipientOptedOut)
        message.status = MessageStatus.REFUSED if opted_out else MessageStatus.FAILED
        message.error_code = (error.provider_code if isinstance(error, ProviderRefused) else "") or error.code
        message.error = str(error)
        if opted_out:
            rows.record_opt_out(session, org_id, message.remote_address, source="provider")


def _merge_sent(platform: Platform, org_id: UUID, message_id: UUID, sent: SentMessage) -> None:
    """Keep the SID, whoever holds the lane by now: the first SID wins, the status only moves forward."""
    with platform.database.transaction(org_id) as session:
        message = rows.lock_message(session, org_id, message_id)
        if message is None:
            return
        if message.provider_sid is None:
            message.provider_sid = sent.sid
        message.own_address = message.own_address or sent.sender
        _apply_status(session, message, sent.status or "queued", None)


def _apply_status(session: Session, message: Message, provider_status: str, error_code: str | None) -> None:
    status = MessageStatus.SENT if provider_status in _TWILIO_SENT else provider_status
    if status not in set(MessageStatus):
        return
    if message.status == MessageStatus.PLANNED:  # news of a text that we had taken for not sent
        message.status = MessageStatus.SENDING
    if message.move(status) or message.provider_status is None:
        message.provider_status = provider_status
    message.updated_at = datetime.now(UTC)
    if error_code and message.status in (MessageStatus.FAILED, MessageStatus.UNDELIVERED):
        message.error_code = error_code
        if error_code == "21610":
            rows.record_opt_out(session, message.org_id, message.remote_address, source="provider")


def _look_after(platform: Platform) -> timedelta:
    return timedelta(seconds=platform.settings.unknown_lookup_seconds)


def _settle_unknown(work: Work, message: Message) -> None:
    """A text found in ``sending``: look it up at Twilio, twice, before it is sent again; never guess.

    1 wait for its callback; 2 look among SIDs nobody owns; 3 exactly one fits: it is that one;
    4 several: a person must look; 5 none, twice: send again; 6 unclear for ten minutes: give up, openly.
    """
    platform, org_id = work.platform, message.org_id
    pause = _look_after(platform)
    since = message.sending_since or message.created_at
    waited = datetime.now(UTC) - (message.looked_up_at or since)
    if waited < pause:
        raise Postponed("waiting for a status callback before looking it up", after=pause - waited)
    if datetime.now(UTC) - since > max(GIVE_UP_LOOKING, 4 * pause):
        _leave_unknown(platform, org_id, message.id)
        raise PermanentFailure("it cannot be told whether Twilio sent this text; it is not sent again", code="unknown")
    candidates = _find_candidates(platform, message, since)
    with platform.database.transaction(org_id) as session:
        row = rows.lock_message(session, org_id, message.id)
        if row is None or row.provider_sid is not None or row.status not in ("sending", "unknown"):
            return
        if len(candidates) == 1:
            row.provider_sid = candidates[0].sid
            _apply_status(session, row, candidates[0].status or "queued", None)
            return
        if len(candidates) > 1:
            row.status = MessageStatus.UNKNOWN
        else:
            row.lookups += 1
            row.looked_up_at = datetime.now(UTC)
            if row.lookups >= NEEDED_LOOKUPS:
                row.status = MessageStatus.PLANNED
                row.sending_since = None
    if len(candidates) > 1:
        log.error("message.unknown", message_id=str(message.id), org_id=str(org_id), candidates=len(candidates))
        raise PermanentFailure("several texts at Twilio could be this one; it is not sent again", code="unknown")
    again_now = message.lookups + 1 >= NEEDED_LOOKUPS
    raise Postponed("Twilio does not list it", after=timedelta(seconds=0.1) if again_now else pause)


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
    _, credentials = _twilio(platform, message.org_id)
    listed = platform.twilio.list_sent(
        credentials,
        to=message.remote_address,
        channel=message.channel,
        since=since - timedelta(seconds=5),
        timeout_seconds=SEND_TIMEOUT_SECONDS,
    )
    with platform.database.transaction(message.org_id) as session:
        owned = rows.owned_sids(session, message.org_id, [text.sid for text in listed])
    wanted = _normal(message.body)
    return [text for text in listed if text.sid not in owned and wanted in _normal(text.body)]


def _normal(body: str) -> str:
    """A body without what Twilio may change: spaces, quotes and dashes (smart encoding); a prefix may stay."""
    plain = body.translate(str.maketrans("\u2019\u2018\u201c\u201d\u2013", "''\"\"-"))
    return " ".join(plain.split()).casefold()


def _twilio(platform: Platform, org_id: UUID) -> tuple[Endpoint, TwilioCredentials]:
    endpoint = platform.directory.integration(org_id, "twilio")
    assert isinstance(endpoint.credentials, TwilioCredentials)
    return endpoint, endpoint.credentials


def _body(work: Work) -> dict[str, Any]:
    if work.delivery.body is None:
        raise PermanentFailure("the delivery has no payload", code="no_payload")
    return work.delivery.body
