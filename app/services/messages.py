"""Texts: planned as a row, sent once, and moved forward by whatever news comes.

A text is committed as ``sending`` before Twilio is asked; one whose fate is unknown is settled by its
status callback, or looked up (``message_settling.py``), before anything is repeated.
"""

from __future__ import annotations

from dataclasses import dataclass
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
from app.integrations.twilio.addresses import SMS
from app.models import messages as rows
from app.models import sending
from app.models.aliases import alias_from
from app.models.inbox import insert_own_work
from app.models.messages import Message, MessageStatus
from app.services import own_work, turns, whatsapp
from app.services.delivery import Postponed, Work
from app.services.message_checks import check_of
from app.services.message_settling import TWILIO_SENT, apply_status, look_after, settle_unknown, twilio_of
from app.services.own_work import OwnWork
from app.services.whatsapp import Way
from app.services.wording import Text

if TYPE_CHECKING:
    from app.services.directory import Endpoint
    from app.services.platform import Platform

SEND_TIMEOUT_SECONDS = 10.0


def plan_text(
    session: Session,
    org_id: UUID,
    *,
    to: str,
    body: str | Text,
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
        body=body.body if isinstance(body, Text) else body,
        template=body.template if isinstance(body, Text) else None,
        template_values=dict(body.values) if isinstance(body, Text) and channel == whatsapp.CHANNEL else None,
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
    taken = _take(platform, org_id, message_id)
    if taken is None:
        return
    message = taken.message
    if message.status != MessageStatus.PLANNED:
        settle_unknown(work, message)
        return
    endpoint, credentials = twilio_of(platform, org_id)
    turns.take_for_text(platform, credentials, message)
    way = _mark_sending(work, taken)
    if way is None:
        if _take(platform, org_id, message_id) is not None:
            raise Postponed("another process has begun to send it", after=look_after(platform))
        return
    try:
        with turns.sending(platform, credentials, message, seconds=SEND_TIMEOUT_SECONDS):
            sent = platform.twilio.send(
                credentials,
                channel=message.channel,
                to=message.remote_address,
                body=message.body,
                approved=way.approved,
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
        whatsapp.send_by_sms_instead(session, work.platform.directory.business(org_id), message, plan_text)
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
        created_at=work.delivery.received_at,  # from then on WhatsApp's window is open, however late it is handled
    )
    return rows.lock_message(session, work.delivery.org_id, message_id) if message_id else None


@dataclass(frozen=True, slots=True)
class _Taken:
    """A text, detached, and the alias that stands for its recipient if they were erased."""

    message: Message
    alias: str | None = None


def _take(platform: Platform, org_id: UUID, message_id: UUID) -> _Taken | None:
    """The text as it stands, detached; None when there is nothing left to send.

    One that is still to be sent is not locked: whoever sends it looks again (``_mark_sending``).
    """
    planned = sending.read_planned(platform.database.at_once(org_id), org_id, message_id)
    if planned is not None:
        text, sealed = planned
        key = platform.vault.open_bytes(sealed) if sealed is not None else None
        return _Taken(text, alias_from(key, text.remote_address) if key is not None else None)
    with platform.database.transaction(org_id) as session:
        message = rows.lock_message(session, org_id, message_id)
        if message is None:
            raise NotFound("no such text")
        if message.status not in (MessageStatus.PLANNED, MessageStatus.SENDING, MessageStatus.UNKNOWN):
            return None
        if message.status != MessageStatus.PLANNED and message.provider_sid:
            message.move(MessageStatus.SENT)
            return None
        return _Taken(message)


def _mark_sending(work: Work, taken: _Taken) -> Way | None:
    """Commit that Twilio is about to be asked, and for what; None when it is not to be asked after all.

    Raises LeaseLost, and PermanentFailure when WhatsApp would not take the text and nothing may carry it instead.
    """
    platform, lane, org_id, message_id = work.platform, work.lane, taken.message.org_id, taken.message.id
    if taken.message.channel == SMS and sending.begin_sending(
        platform.database.at_once(org_id),
        org_id,
        message_id,
        lane_key=lane.lane_key,
        token=lane.token,
        alias=taken.alias,
    ):
        return Way()
    business = platform.directory.business(org_id)
    with platform.database.transaction(org_id) as session:
        work.confirm_in(session)
        message = rows.lock_message(session, org_id, message_id)
        if message is None or message.status != MessageStatus.PLANNED:
            return None
        if rows.has_opted_out(session, org_id, message.remote_address):
            message.status = MessageStatus.REFUSED
            message.error_code, message.error = "opted_out", "the recipient has opted out"
            return None
        way = whatsapp.way_of(session, business, message)
        if way is None:
            message.status, message.error_code = MessageStatus.FAILED, whatsapp.WINDOW_CLOSED
            message.error = whatsapp.NO_WAY
            carried = whatsapp.send_by_sms_instead(session, business, message, plan_text)
        else:
            _begin(message, way)
    if way is not None:
        return way
    platform.bell.ring()
    if not carried:
        raise PermanentFailure(whatsapp.NO_WAY, code="window_closed", advice=whatsapp.ADVICE)
    return None


def _begin(message: Message, way: Way) -> None:
    message.status = MessageStatus.SENDING
    message.sending_since = func.now()
    message.sends += 1
    message.lookups = 0
    message.looked_up_at = None
    message.content_sid = way.approved.content_sid if way.approved else None


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
        whatsapp.send_by_sms_instead(session, platform.directory.business(org_id), message, plan_text)
    platform.bell.ring()


def _merge_sent(platform: Platform, org_id: UUID, message_id: UUID, sent: SentMessage) -> None:
    """Keep the SID, whoever holds the lane by now: the first SID wins, the status only moves forward."""
    check = check_of(platform, org_id, message_id)
    said = sent.status or "queued"
    if said in TWILIO_SENT:
        asks = platform.database.at_once(org_id)
        sending.keep_sent(asks, org_id, message_id, sid=sent.sid, sender=sent.sender, said=said, check=check)
        return
    with platform.database.transaction(org_id) as session:
        message = rows.lock_message(session, org_id, message_id)
        if message is None:
            return
        if message.provider_sid is None:
            message.provider_sid = sent.sid
        message.own_address = message.own_address or sent.sender
        apply_status(session, message, said, None)
        insert_own_work(session, [check])


def _body(work: Work) -> dict[str, Any]:
    if work.delivery.body is None:
        raise PermanentFailure("the delivery has no payload", code="no_payload")
    return work.delivery.body
