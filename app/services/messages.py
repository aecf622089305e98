"""Texts: planned as a row, sent once, and moved forward by whatever news comes.

A text is committed as ``sending`` before Twilio is asked; one whose fate is unknown is settled by its
status callback, or looked up (``message_settling.py``), before anything is repeated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import func
from sqlalchemy.orm import Session

from app.errors import (
    DeadlineExceeded,
    NotFound,
    PermanentFailure,
    ProviderRefused,
    ProviderThrottled,
    ProviderUnavailable,
    RecipientOptedOut,
    TemporaryFailure,
)
from app.integrations.twilio import SentMessage, conversation_lane
from app.models import messages as rows
from app.models.messages import Message, MessageStatus
from app.services import own_work, turns
from app.services.delivery import Postponed, Work
from app.services.message_checks import plan_check
from app.services.message_settling import apply_status, look_after, settle_unknown, twilio_of
from app.services.own_work import OwnWork

if TYPE_CHECKING:
    from app.services.directory import Endpoint
    from app.services.platform import Platform

SEND_TIMEOUT_SECONDS = 10.0
WINDOW_CLOSED = "63016"  # Twilio docs: WhatsApp takes no free text 24 hours after the customer's last message


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
        settle_unknown(work, message)
        return
    endpoint, credentials = twilio_of(platform, org_id)
    turns.take_for_text(platform, credentials, message)
    work.confirm()
    if not _mark_sending(platform, org_id, message_id):
        if _take(platform, org_id, message_id) is not None:
            raise Postponed("another process has begun to send it", after=look_after(platform))
        return
    try:
        with turns.sending(platform, credentials, message):
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
            raise Postponed("it is not known whether Twilio sent it", after=look_after(platform)) from error
        _back_to_planned(platform, org_id, message_id)
        if isinstance(error, ProviderThrottled):
            turns.text_was_throttled(platform, credentials, message, error)
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
        apply_status(session, message, news["status"], news.get("error_code"))
        _send_by_sms_instead(session, message)
    work.platform.bell.ring()
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
        message.sending_since = func.now()
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
        _send_by_sms_instead(session, message)
    platform.bell.ring()


def _send_by_sms_instead(session: Session, message: Message) -> None:
    """WhatsApp refused the text because its window is closed: it has certainly not arrived, so SMS may carry it."""
    undelivered = message.status in (MessageStatus.FAILED, MessageStatus.UNDELIVERED)
    has_number = message.remote_address.startswith("+")
    if message.channel != "whatsapp" or not undelivered or message.error_code != WINDOW_CLOSED or not has_number:
        return
    plan_text(
        session,
        message.org_id,
        to=message.remote_address,
        body=message.body,
        channel="sms",
        idempotency_key=f"sms-instead:{message.id}",
        purpose=message.purpose or "sms_instead",
        appointment_id=message.appointment_id,
        call_id=message.call_id,
    )


def _merge_sent(platform: Platform, org_id: UUID, message_id: UUID, sent: SentMessage) -> None:
    """Keep the SID, whoever holds the lane by now: the first SID wins, the status only moves forward."""
    with platform.database.transaction(org_id) as session:
        message = rows.lock_message(session, org_id, message_id)
        if message is None:
            return
        if message.provider_sid is None:
            message.provider_sid = sent.sid
        message.own_address = message.own_address or sent.sender
        apply_status(session, message, sent.status or "queued", None)
        plan_check(session, platform, message)


def _body(work: Work) -> dict[str, Any]:
    if work.delivery.body is None:
        raise PermanentFailure("the delivery has no payload", code="no_payload")
    return work.delivery.body
