"""A finished delivery once more: back in the queue as new, in a lane of its own.

Owns which deliveries may be replayed and what is said about effects that are recorded already. It
repeats none of those: handlers find their rows by natural keys (a text's SID, an appointment's row).
The one thing it undoes is a refusal: a text that Twilio refused, and so certainly never sent, may be
sent after all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.errors import InvalidInput
from app.integrations.vapi import call_of
from app.models import Appointment, Delivery, Message, Payload, attempts
from app.models.appointments import find_appointment
from app.models.calls import find_call
from app.models.deliveries import INTERNAL_PROVIDER, find_payload
from app.models.messages import MessageStatus, lock_message
from app.services import audit
from app.services.inspection import get_delivery
from app.services.own_work import OwnWork
from app.services.readable import plain

if TYPE_CHECKING:
    from app.services.platform import Platform

FINISHED = {"processed", "skipped", "dead"}
_CERTAINLY_NOT_SENT = {MessageStatus.FAILED, MessageStatus.REFUSED}


def replay(platform: Platform, delivery_id: int, *, actor: str, org_id: UUID | None = None) -> dict[str, Any]:
    """Put a finished delivery back into the queue and ring the bell.

    Returns ``id``, ``status``, ``replayed``, ``recorded_effects`` (what exists already and is not done
    again) and ``bell_rung`` (False: no worker could be told, a web process takes it in its next sweep).
    With an organization given, another's delivery is not there. Raises NotFound, and InvalidInput for one that
    is unfinished, was never understood, or was answered while somebody waited.
    """
    with platform.database.transaction(org_id, system=org_id is None) as session:
        delivery = get_delivery(session, delivery_id)
        said = _refuse_pointless(delivery, find_payload(session, delivery))
        effects = [plain(effect) for effect in _effects(session, delivery, said)]
    _lift_refusal(platform, delivery, said)
    with platform.database.transaction(system=True) as session:
        if not attempts.reopen(session, org_id=delivery.org_id, delivery_id=delivery.id):
            raise InvalidInput("somebody else has just replayed it", code="unfinished")
        audit.note(
            session, delivery.org_id, actor=actor, action="replay", subject=str(delivery.id), was=delivery.status
        )
    return {
        "id": delivery.id,
        "status": "received",
        "replayed": True,
        "recorded_effects": effects,
        "bell_rung": platform.bell.ring_now(),
    }


def _refuse_pointless(delivery: Delivery, said: Payload | None) -> dict[str, Any]:
    """What the delivery said; raises InvalidInput when delivering it again could do nothing."""
    if delivery.status not in FINISHED:
        raise InvalidInput(f"it is not finished: it is {delivery.status} and goes on by itself", code="unfinished")
    if said is not None and said.words_removed_at is not None and _needs_words(delivery, said):
        raise InvalidInput("what it said is not kept any more (`org show` tells for how long)", code="words_gone")
    if said is None or said.body is None:
        raise InvalidInput("it was never understood; only its raw bytes are kept, see `deliveries show`", code="raw")
    if said.answer is not None:
        raise InvalidInput("it was answered while somebody waited; there is nothing left to deliver", code="answered")
    return said.body


def _needs_words(delivery: Delivery, said: Payload) -> bool:
    """Whether its handler could do nothing, or the wrong thing, with what is left of it."""
    return said.body is None or (delivery.provider, delivery.type) == ("twilio", "message.inbound")


def _lift_refusal(platform: Platform, delivery: Delivery, said: dict[str, Any]) -> None:
    """A text that was refused becomes a planned one again. One whose fate is unknown stays as it is.

    A recipient who has opted out is refused again when it is sent.
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


def _effects(session: Session, delivery: Delivery, said: dict[str, Any]) -> list[dict[str, Any]]:
    """What is recorded of the delivery's effects, found by the same natural keys as its handler uses."""
    find = _FINDERS.get((delivery.provider, delivery.type))
    return find(session, delivery.org_id, said) if find else []


def _of_call(session: Session, org_id: UUID, said: dict[str, Any]) -> list[dict[str, Any]]:
    call_id = call_of(said).call_id
    call = find_call(session, org_id, call_id) if call_id else None
    return [{"kind": "call", "id": call.id, "status": call.status}] if call else []


def _of_text_in(session: Session, org_id: UUID, said: dict[str, Any]) -> list[dict[str, Any]]:
    """The text as stored, and the reply to it."""
    stored = _text(session, org_id, Message.provider_sid == said["_"]["message_sid"])
    if stored is None:
        return []
    reply = _text(session, org_id, Message.idempotency_key == f"reply:{stored.id}")
    return [_as_effect(text) for text in (stored, reply) if text]


def _of_status(session: Session, org_id: UUID, said: dict[str, Any]) -> list[dict[str, Any]]:
    text = _text(session, org_id, Message.provider_sid == said["_"]["message_sid"])
    return [_as_effect(text)] if text else []


def _of_sending(session: Session, org_id: UUID, said: dict[str, Any]) -> list[dict[str, Any]]:
    text = _text(session, org_id, Message.id == UUID(said["message_id"]))
    return [_as_effect(text)] if text and text.provider_sid else []


def _of_appointment(session: Session, org_id: UUID, said: dict[str, Any]) -> list[dict[str, Any]]:
    """The appointment, and every text about it."""
    row = find_appointment(session, org_id, UUID(said["appointment_id"]))
    if row is None:
        return []
    texts = session.scalars(
        select(Message).where(Message.org_id == org_id, Message.appointment_id == row.id).order_by(Message.created_at)
    )
    return [_appointment_effect(row), *map(_as_effect, texts)]


def _appointment_effect(row: Appointment) -> dict[str, Any]:
    return {"kind": "appointment", "id": row.id, "status": row.status, "google_event_id": row.google_event_id}


def _text(session: Session, org_id: UUID, condition: Any) -> Message | None:
    return session.scalar(select(Message).where(Message.org_id == org_id, condition))


def _as_effect(text: Message) -> dict[str, Any]:
    return {"kind": f"{text.direction} text", "id": text.id, "status": text.status, "sid": text.provider_sid}


_FINDERS: dict[tuple[str, str], Callable[[Session, UUID, dict[str, Any]], list[dict[str, Any]]]] = {
    ("vapi", "status-update"): _of_call,
    ("vapi", "end-of-call-report"): _of_call,
    ("twilio", "message.inbound"): _of_text_in,
    ("twilio", "message.status"): _of_status,
    (INTERNAL_PROVIDER, OwnWork.SEND_MESSAGE): _of_sending,
    (INTERNAL_PROVIDER, OwnWork.FINISH_APPOINTMENT): _of_appointment,
}
