"""Looking things up: deliveries, calls, texts and appointments as plain data, for operators.

Owns which facts of a row are shown and under which names. Reads only. With an organization given it
reads as that tenant, so that a wrong filter can never show somebody else's rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy.orm import Session

from app.errors import NotFound
from app.models import Appointment, Call, Delivery, Message
from app.models.appointments import list_appointments
from app.models.calls import list_calls
from app.models.deliveries import (
    UNOWNED_ORG_ID,
    DeliveryStatus,
    find_delivery,
    find_payload,
    list_attempts,
    list_deliveries,
)
from app.models.messages import list_messages
from app.models.operations import list_actions
from app.services import organizations
from app.services.readable import fields, plain

if TYPE_CHECKING:
    from app.services.platform import Platform

DELIVERY_STATUSES = tuple(status.value for status in DeliveryStatus)

_DELIVERY = (
    "id",
    "org_id",
    "provider",
    "type",
    "event_id=event_key",
    "status",
    "attempts",
    "received_at",
    "next_attempt_at",
    "finished_at",
    "waiting_on",
    "error_code",
    "note",
)
_DELIVERY_IN_FULL = ("integration_id", "lane=lane_key", "crashes", "occurred_at", "running_since", "set_aside_at")
_ATTEMPT = ("number", "started_at", "ended_at", "duration_ms", "outcome", "error_code", "error", "process")
_CALL = (
    "id",
    "org_id",
    "call_id=vapi_call_id",
    "provider_call_id",
    "type",
    "status",
    "assistant_id",
    "customer_number",
    "dialled_number",
    "started_at",
    "ended_at",
    "ended_reason",
    "duration_seconds",
    "cost",
    "summary",
    "transcript",
    "recording_url",
    "structured_data",
    "success_evaluation",
    "reported_at",
    "consent_sentence",
    "consent_at",
    "words_removed_at",
    "created_at",
    "updated_at",
)
_MESSAGE_HEAD = ("id", "org_id", "direction", "channel")
_MESSAGE_TAIL = (
    "body",
    "media",
    "status",
    "provider_status",
    "sid=provider_sid",
    "error_code",
    "error",
    "purpose",
    "appointment_id",
    "call_id",
    "profile_name",
    "sends",
    "words_removed_at",
    "created_at",
    "updated_at",
)
_APPOINTMENT = (
    "id",
    "org_id",
    "name",
    "phone",
    "starts_at",
    "ends_at",
    "status",
    "calendar_action",
    "google_event_id",
    "calendar_id",
    "channel",
    "notes",
    "call_id",
    "tool_call_id",
    "external_conflict",
    "conflict_since",
    "failure",
    "version",
    "texted_version",
    "created_at",
    "updated_at",
)


def deliveries(
    platform: Platform, *, org_id: UUID | None = None, limit: int = 100, **equal: str | None
) -> list[dict[str, Any]]:
    """The newest first, those that stand as ``equal`` says (``status``, ``provider``, ``type``, ``event_key``).

    ``event_id`` is unique within its integration; times are UTC. Raises NotFound.
    """
    with _reading(platform, org_id) as session:
        return [show_delivery(row) for row in list_deliveries(session, org_id=org_id, limit=limit, **equal)]


def unowned(platform: Platform, *, limit: int = 100, **equal: str | None) -> list[dict[str, Any]]:
    """Events that came through an account of the platform's and that no organization owns, the newest first."""
    with platform.database.transaction(system=True) as session:
        rows = list_deliveries(session, org_id=UNOWNED_ORG_ID, limit=limit, **equal)
        return [show_delivery(row) for row in rows]


def delivery(platform: Platform, delivery_id: int) -> dict[str, Any]:
    """One delivery with every attempt, what it said and was answered, and who replayed it. Raises NotFound."""
    with platform.database.transaction(system=True) as session:
        shown = delivery_in_full(session, delivery_id)
        notes = list_actions(session, UUID(shown["org_id"]), action="replay", subject=str(delivery_id))
        return {**shown, "replays": [fields(note, ("at", "actor", "details")) for note in notes]}


def calls(platform: Platform, *, org_id: UUID | None = None, limit: int = 100) -> list[dict[str, Any]]:
    """The newest first; ``cost`` is in US dollars. Raises NotFound."""
    with _reading(platform, org_id) as session:
        return [show_call(row) for row in list_calls(session, org_id=org_id, limit=limit)]


def messages(platform: Platform, *, org_id: UUID | None = None, limit: int = 100) -> list[dict[str, Any]]:
    """Texts in and out, the newest first. Raises NotFound."""
    with _reading(platform, org_id) as session:
        return [show_message(row) for row in list_messages(session, org_id=org_id, limit=limit)]


def appointments(platform: Platform, *, org_id: UUID | None = None, limit: int = 100) -> list[dict[str, Any]]:
    """The latest made first; ``calendar_action`` is what the calendar does not know yet. Raises NotFound."""
    with _reading(platform, org_id) as session:
        return [show_appointment(row) for row in list_appointments(session, org_id=org_id, limit=limit)]


def delivery_in_full(session: Session, delivery_id: int) -> dict[str, Any]:
    """The same in the caller's transaction; raises NotFound, also for what that may not see."""
    row = get_delivery(session, delivery_id)
    said = find_payload(session, row)
    return {
        **show_delivery(row),
        **fields(row, _DELIVERY_IN_FULL),
        "attempts_log": [fields(attempt, _ATTEMPT) for attempt in list_attempts(session, row)],
        "payload": plain(said.body) if said else None,
        "answer": plain(said.answer) if said else None,
        "raw": plain(said.raw) if said else None,
        "words_removed_at": plain(said.words_removed_at) if said else None,
    }


def get_delivery(session: Session, delivery_id: int) -> Delivery:
    """The delivery, in the caller's transaction; raises NotFound."""
    row = find_delivery(session, delivery_id)
    if row is None:
        raise NotFound("no delivery has this id")
    return row


@contextmanager
def _reading(platform: Platform, org_id: UUID | None) -> Iterator[Session]:
    if org_id is None:
        with platform.database.transaction(system=True) as session:
            yield session
        return
    with platform.database.transaction(org_id) as session:
        organizations.get(session, org_id)
        yield session


def show_delivery(row: Delivery) -> dict[str, Any]:
    """A delivery as it stands in a list."""
    return {**fields(row, _DELIVERY), "set_aside": row.set_aside_at is not None}


def show_call(row: Call) -> dict[str, Any]:
    """A call, all of it."""
    return fields(row, _CALL)


def show_appointment(row: Appointment) -> dict[str, Any]:
    """An appointment, all of it."""
    return fields(row, _APPOINTMENT)


def show_message(row: Message) -> dict[str, Any]:
    """A text, with its ends as sender and recipient."""
    ends = (row.remote_address, row.own_address)
    sender, recipient = ends if row.direction == "inbound" else reversed(ends)
    return {**fields(row, _MESSAGE_HEAD), "from": sender, "to": recipient, **fields(row, _MESSAGE_TAIL)}
