"""Whose an event is, when it comes through an account of the platform's that serves many organizations.

Owns the rule: all keys of an event that anybody has must name one organization. None, or two different ones,
is nobody's: kept, marked, told, and never guessed. An organization's own integration is never routed by
what a body says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy.orm import Session

from app.errors import InvalidInput, NotFound
from app.integrations import twilio, vapi
from app.integrations.events import InboundEvent
from app.models import messages, routing
from app.models.deliveries import UNOWNED_ORG_ID
from app.models.routing import Key, UnownedEvent
from app.observability.logging import get_logger
from app.services import audit

if TYPE_CHECKING:
    from app.services.directory import Endpoint
    from app.services.platform import Platform

# What `org set` names, by the kind of key; phone number and assistant are the organization's own facts too.
KINDS = {
    "assistant": "vapi_assistant",
    "vapi_phone_number": "vapi_phone_number",
    "number": "phone_number",
    "twilio_account": "twilio_account",
    "messaging_service": "twilio_messaging_service",
    "whatsapp_sender": "whatsapp_sender",
}
_KEYS: dict[str, Callable[[dict[str, Any]], list[Key]]] = {"vapi": vapi.routing_keys, "twilio": twilio.routing_keys}
PLATFORM_PROVIDERS = tuple(_KEYS)
PAGE = 500
MOST_LOOKED_AT = 100_000
LATE = timedelta(minutes=2)  # other processes know a new owner within seconds
MOST_AT_A_LOOK = 1_000

log = get_logger(__name__)


def route(platform: Platform, endpoint: Endpoint, event: InboundEvent) -> tuple[Endpoint, InboundEvent]:
    """The endpoint as the owner's, or as nobody's (``UNOWNED_ORG_ID``, with a remark on the event).

    Raises DatabaseUnavailable when the keys were never known to this process.
    """
    if not endpoint.is_platform:
        return endpoint, event
    org_id, event = owner(platform, endpoint.integration_id, event)
    return replace(endpoint, org_id=org_id), event


def owner(platform: Platform, integration_id: UUID, event: InboundEvent) -> tuple[UUID, InboundEvent]:
    """Whose an event of the platform's account is, as `route` finds it. Raises DatabaseUnavailable."""
    owners = _owners(platform, event.provider, event.type, event.payload)
    if len(owners) == 1:
        return next(iter(owners)), event
    why = "its keys name different organizations" if owners else "no organization has any of its keys"
    log.warning("webhook.unowned", integration_id=str(integration_id), provider=event.provider, reason=why)
    return UNOWNED_ORG_ID, replace(event, remark=event.remark or why)


def deliver_to(platform: Platform, org_id: UUID, *, actor: str) -> int:
    """Give the organization the waiting events that its keys name; how many. Looks at a bounded number."""
    moved = _adopt(platform, only=org_id, most=MOST_LOOKED_AT)
    if moved:
        with platform.database.transaction(system=True) as session:
            audit.note(session, org_id, actor=actor, action="events.adopted", subject=str(org_id), events=moved)
    return moved


def adopt_late(platform: Platform) -> int:
    """Give their owners what a process stored as nobody's that did not know the owner yet. Called by the watcher."""
    return _adopt(platform, only=None, within=LATE, most=MOST_AT_A_LOOK)


def assign(platform: Platform, event_id: int, org_id: UUID, *, actor: str) -> dict[str, Any]:
    """Give one waiting event to an organization by hand; ``id``, ``org_id``, ``bell_rung``.

    Raises NotFound for an organization that does not exist, InvalidInput when the event does not wait for an owner.
    """
    if platform.directory.find_business(org_id) is None:
        raise NotFound("no organization has this id")
    with platform.database.transaction(system=True) as session:
        found = routing.list_unowned(session, after=event_id - 1, limit=1)
        if not found or found[0].id != event_id or not _move(session, found[0], org_id):
            raise InvalidInput("no event with this id waits for an owner", code="not_unowned")
        audit.note(session, org_id, actor=actor, action="event.assign", subject=str(event_id))
    return {"id": event_id, "org_id": str(org_id), "bell_rung": platform.bell.ring_now()}


def _adopt(platform: Platform, *, only: UUID | None, most: int, within: timedelta | None = None) -> int:
    moved, looked, after = 0, 0, 0
    while looked < most:
        with platform.database.transaction(system=True) as session:
            page = routing.list_unowned(session, after=after, limit=PAGE, within=within)
            for event in page:
                owners = _owners_in(session, event)
                if len(owners) == 1 and (only is None or only in owners):
                    moved += _move(session, event, next(iter(owners)))
        if len(page) < PAGE:
            break
        looked, after = looked + len(page), page[-1].id
    if moved:
        platform.bell.ring()
        log.info("events.adopted", events=moved)
    return moved


def _move(session: Session, event: UnownedEvent, org_id: UUID) -> bool:
    """With its lane, its key and the books; and what it said about consent."""
    if not routing.assign(session, event.id, org_id):
        return False
    if (event.provider, event.type) == ("twilio", "message.inbound") and event.body:
        said = twilio.consent_of(event.body)
        if said is not None:
            routing.record_consent(session, org_id, said.address, opted_out=said.opted_out, event_id=event.id)
    return True


def _owners(platform: Platform, provider: str, event_type: str, payload: dict[str, Any]) -> set[UUID] | frozenset[UUID]:
    if (provider, event_type) == ("twilio", "message.status"):
        with platform.database.transaction(system=True) as session:
            found = _of_text(session, payload)
        if found:
            return found
    keys = _keys(provider, payload)
    return platform.directory.owners(keys) if keys else frozenset()


def _owners_in(session: Session, event: UnownedEvent) -> set[UUID]:
    """The same in the caller's transaction, past every cache."""
    if event.body is None:
        return set()
    if (event.provider, event.type) == ("twilio", "message.status"):
        found = _of_text(session, event.body)
        if found:
            return found
    return routing.find_owners(session, _keys(event.provider, event.body))


def _of_text(session: Session, payload: dict[str, Any]) -> set[UUID]:
    """Whose text a status callback is about: by our id in its signed URL, or by Twilio's SID."""
    said = payload["_"]
    message_id = UUID(said["message_id"]) if said.get("message_id") else None
    return set(messages.find_owners(session, message_id=message_id, provider_sid=said["message_sid"]))


def _keys(provider: str, payload: dict[str, Any]) -> list[Key]:
    find = _KEYS.get(provider)
    return find(payload) if find else []
