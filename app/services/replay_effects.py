"""What a delivery has done outside, and what doing it once more would be.

Owns how effects are found (by the same natural keys as handlers use) and how one that is recorded is
repeated on purpose: a text is planned as a new one with the same words, which a recipient who has opted out
is not sent; an appointment is put into its calendar again, should it be missing there. Repeats nothing unasked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.errors import InvalidInput
from app.integrations.vapi import call_of
from app.models import Appointment, Delivery, Message
from app.models.appointments import AppointmentStatus, CalendarAction, find_appointment, lock_appointment
from app.models.calls import find_call
from app.models.deliveries import INTERNAL_PROVIDER
from app.models.messages import MessageStatus, lock_message
from app.services.messages import plan_text
from app.services.own_work import OwnWork
from app.services.wording import Text

if TYPE_CHECKING:
    from app.services.platform import Platform

_CERTAINLY_NOT_SENT = {MessageStatus.FAILED, MessageStatus.REFUSED}
_NOT_SENT_YET = {MessageStatus.PLANNED, *_CERTAINLY_NOT_SENT}
SEND, CALENDAR = "send the text again", "put it into the calendar again if it is missing there"


@dataclass(frozen=True, slots=True)
class Effect:
    """Something recorded. ``again`` is what repeating it would do; None: it is a row of ours, and is only merged."""

    shown: dict[str, Any]
    again: str | None = None
    message_id: UUID | None = None
    appointment_id: UUID | None = None


def recorded(session: Session, delivery: Delivery, said: dict[str, Any]) -> list[Effect]:
    """What exists of the delivery's effects."""
    find = _FINDERS.get((delivery.provider, delivery.type))
    return find(session, delivery.org_id, said) if find else []


def outstanding(session: Session, delivery: Delivery, said: dict[str, Any]) -> list[str]:
    """What of the delivery's own work has certainly not been done outside, and so will be by a plain replay."""
    if delivery.provider != INTERNAL_PROVIDER:
        return []
    if delivery.type == OwnWork.SEND_MESSAGE:
        text = _text(session, delivery.org_id, Message.id == UUID(said["message_id"]))
        waits = text is not None and text.provider_sid is None and text.status in _NOT_SENT_YET
        return ["send the text"] if waits else []
    if delivery.type == OwnWork.FINISH_APPOINTMENT:
        row = find_appointment(session, delivery.org_id, UUID(said["appointment_id"]))
        return [f"{row.calendar_action} it in the calendar"] if row is not None and row.calendar_action else []
    return []


def lift_refusal(platform: Platform, delivery: Delivery, said: dict[str, Any]) -> None:
    """A text that was refused becomes a planned one again. One whose fate is unknown stays as it is.

    A recipient who has opted out is refused again when it is sent. Raises InvalidInput when its words are gone.
    """
    if (delivery.provider, delivery.type) != (INTERNAL_PROVIDER, OwnWork.SEND_MESSAGE):
        return
    with platform.database.transaction(delivery.org_id) as session:
        message = lock_message(session, delivery.org_id, UUID(said["message_id"]))
        if message is None or message.provider_sid is not None:
            return
        if message.words_removed_at is not None:  # to be sent, or looked for at Twilio, it would need its words
            raise InvalidInput("the text itself is not kept any more", code="words_gone")
        if message.status not in _CERTAINLY_NOT_SENT:
            return
        message.status = MessageStatus.PLANNED
        message.sending_since = message.error_code = message.error = None


def repeat(platform: Platform, delivery: Delivery, effects: list[Effect]) -> int:
    """Do once more, on purpose, what can be; returns how much was planned.

    Two that replay the same ended delivery at once, or one that does so again after a crash, repeat it once:
    the key of a text says which ending of the delivery it was repeated after.
    """
    planned = 0
    for effect in effects:
        with platform.database.transaction(delivery.org_id) as session:
            if effect.message_id is not None and effect.again:
                planned += _send_again(session, delivery, effect.message_id)
            elif effect.appointment_id is not None and effect.again:
                planned += _into_calendar_again(session, delivery.org_id, effect.appointment_id)
    return planned


def _send_again(session: Session, delivery: Delivery, message_id: UUID) -> bool:
    text = lock_message(session, delivery.org_id, message_id)
    if text is None or delivery.finished_at is None or text.words_removed_at is not None:
        return False
    planned = plan_text(
        session,
        delivery.org_id,
        to=text.remote_address,
        body=Text(text.template, text.template_values or {}, text.body) if text.template else text.body,
        channel=text.channel,
        idempotency_key=f"again:{text.id}:{delivery.id}:{delivery.finished_at.timestamp():.6f}",
        purpose=text.purpose or "again",
        appointment_id=text.appointment_id,
        call_id=text.call_id,
    )
    return planned is not None


def _into_calendar_again(session: Session, org_id: UUID, appointment_id: UUID) -> bool:
    row = lock_appointment(session, org_id, appointment_id)
    if row is None or not _is_repeatable(row):
        return False
    row.calendar_action = CalendarAction.CREATE  # what the delivery finds to do, which is about to be replayed
    return True


def _of_call(session: Session, org_id: UUID, said: dict[str, Any]) -> list[Effect]:
    call_id = call_of(said).call_id
    call = find_call(session, org_id, call_id) if call_id else None
    return [Effect({"kind": "call", "id": call.id, "status": call.status})] if call else []


def _of_text_in(session: Session, org_id: UUID, said: dict[str, Any]) -> list[Effect]:
    """The text as stored, and the reply to it."""
    stored = _text(session, org_id, Message.provider_sid == said["_"]["message_sid"])
    if stored is None:
        return []
    reply = _text(session, org_id, Message.idempotency_key == f"reply:{stored.id}")
    return [_of_message(text) for text in (stored, reply) if text]


def _of_status(session: Session, org_id: UUID, said: dict[str, Any]) -> list[Effect]:
    """The text that the news was about; news sends nothing."""
    text = _text(session, org_id, Message.provider_sid == said["_"]["message_sid"])
    return [Effect(_of_message(text).shown)] if text else []


def _of_sending(session: Session, org_id: UUID, said: dict[str, Any]) -> list[Effect]:
    text = _text(session, org_id, Message.id == UUID(said["message_id"]))
    return [_of_message(text)] if text and text.provider_sid else []


def _of_appointment(session: Session, org_id: UUID, said: dict[str, Any]) -> list[Effect]:
    """The appointment, and every text about it."""
    row = find_appointment(session, org_id, UUID(said["appointment_id"]))
    if row is None:
        return []
    texts = session.scalars(
        select(Message).where(Message.org_id == org_id, Message.appointment_id == row.id).order_by(Message.created_at)
    )
    shown = {"kind": "appointment", "id": row.id, "status": row.status, "google_event_id": row.google_event_id}
    again = CALENDAR if _is_repeatable(row) else None
    return [Effect(shown, again, appointment_id=row.id), *(Effect(_of_message(text).shown) for text in texts)]


def _is_repeatable(row: Appointment) -> bool:
    """A booking to come that the calendar is taken to know all about."""
    known = row.status == AppointmentStatus.BOOKED and row.calendar_action is None
    return known and row.google_event_id is not None and row.starts_at > datetime.now(UTC)


def _of_message(text: Message) -> Effect:
    """A text; it can be sent again if Twilio has had it, and so it certainly is no unknown."""
    shown = {"kind": f"{text.direction} text", "id": text.id, "status": text.status, "sid": text.provider_sid}
    again = SEND if text.direction == "outbound" and text.provider_sid else None
    return Effect(shown, again, message_id=text.id)


def _text(session: Session, org_id: UUID, condition: Any) -> Message | None:
    return session.scalar(select(Message).where(Message.org_id == org_id, condition))


_FINDERS: dict[tuple[str, str], Callable[[Session, UUID, dict[str, Any]], list[Effect]]] = {
    ("vapi", "status-update"): _of_call,
    ("vapi", "end-of-call-report"): _of_call,
    ("twilio", "message.inbound"): _of_text_in,
    ("twilio", "message.status"): _of_status,
    (INTERNAL_PROVIDER, OwnWork.SEND_MESSAGE): _of_sending,
    (INTERNAL_PROVIDER, OwnWork.FINISH_APPOINTMENT): _of_appointment,
}
