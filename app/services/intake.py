"""Stores what came in: once, in one durable commit, before anybody is told that it arrived.

Owns the promise behind a 2xx. Every event of every provider passes here, and nothing else writes
the inbox for a webhook.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

from sqlalchemy.exc import DBAPIError

from app.errors import DatabaseUnavailable
from app.integrations.events import InboundEvent
from app.models.deliveries import UNOWNED, UNOWNED_ORG_ID
from app.models.inbox import NewDelivery, insert_webhooks
from app.observability import context, metrics
from app.observability.logging import get_logger
from app.services import retention

if TYPE_CHECKING:
    from app.services.directory import Endpoint
    from app.services.platform import Platform

LONGEST_KEY = 200  # a B-tree refuses a row of more than 2704 bytes
# SQLSTATE classes that say "this event": data exceptions (NUL in jsonb) and limits of the program.
_REFUSED_DATA = ("22", "54")
# Those that say "not now": a lane somebody holds beyond the time limit, a deadlock, a serialization failure.
_NOT_NOW = ("57014", "40", "55P03")

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Accepted:
    """What intake did. ``delivery_id`` is None for an event that had been stored before."""

    delivery_id: int | None

    @property
    def duplicate(self) -> bool:
        """Whether the event had been stored before."""
        return self.delivery_id is None


class Source(Protocol):
    """Where an event comes from: an ``Endpoint``, or what stands in for one."""

    @property
    def org_id(self) -> UUID:
        """Whose event it is."""

    @property
    def integration_id(self) -> UUID:
        """Within what its key is unique."""


def accept(platform: Platform, endpoint: Source, event: InboundEvent) -> Accepted:
    """Store the event and ring the bell. Raises DatabaseUnavailable: then it must not be answered with 2xx.

    Safe to call twice: the second is a duplicate. Consent (STOP, START) takes effect in the same commit.
    """
    accepted = _store(platform, _as_delivery(endpoint, event))
    platform.bell.ring()
    log.info(
        "webhook.accepted",
        delivery_id=accepted.delivery_id,
        duplicate=accepted.duplicate,
        org_id=str(endpoint.org_id),
        provider=event.provider,
        type=event.type,
        duration_ms=context.request_ms(),
    )
    return accepted


def keep_answered(platform: Platform, endpoint: Endpoint, event: InboundEvent, answer: dict[str, Any]) -> Accepted:
    """Store an event that was answered while somebody waited, with the answer; nobody is to handle it."""
    if retention.stores_nothing(platform, endpoint.org_id):
        event = replace(event, payload=retention.without_words(event.provider, event.payload) or {})
        answer = retention.answer_without_words(event.provider, answer) or {}
    return _store(platform, _as_delivery(endpoint, event, status="processed", answer=answer))


def keep_malformed(platform: Platform, endpoint: Endpoint, raw: bytes, *, reason: str) -> Accepted:
    """Keep a request that is authentic and cannot be understood: raw, dead, for a person to look at.

    Of an organization that wants no words stored only that there was one.
    """
    kept = None if retention.stores_nothing(platform, endpoint.org_id) else raw
    return _store(
        platform,
        NewDelivery(
            org_id=endpoint.org_id,
            integration_id=endpoint.integration_id,
            provider=endpoint.provider,
            type="malformed",
            event_key="raw:" + hashlib.sha256(raw).hexdigest(),
            lane_key="",
            payload=None,
            raw=kept,
            status="dead",
            error_code="malformed_event",
            note=reason,
        ),
    )


def _store(platform: Platform, delivery: NewDelivery) -> Accepted:
    try:
        accepted = _insert(platform, delivery)
    except _Unstorable:
        log.error("webhook.unstorable", org_id=str(delivery.org_id), provider=delivery.provider, type=delivery.type)
        delivery = _as_raw(delivery)
        if retention.stores_nothing(platform, delivery.org_id):
            delivery = replace(delivery, raw=None)
        accepted = _insert(platform, delivery)
    metrics.webhook_stored(delivery.provider, delivery.type, delivery.status, duplicate=accepted.duplicate)
    return accepted


class _Unstorable(Exception):
    """The database refuses this event's data, whenever it is tried."""


def _insert(platform: Platform, delivery: NewDelivery) -> Accepted:
    assert delivery.integration_id is not None
    try:
        with platform.database.intake() as session:
            stored = insert_webhooks(session, [delivery])
    except DBAPIError as error:
        state = str(getattr(error.orig, "pgcode", ""))
        if state.startswith(_REFUSED_DATA):
            raise _Unstorable from None
        if state.startswith(_NOT_NOW):
            raise DatabaseUnavailable("the database did not store it in time") from None
        raise
    except (TypeError, ValueError):  # orjson: half a surrogate pair, a number beyond 64 bits, too deep
        raise _Unstorable from None
    return Accepted(stored.get((delivery.integration_id, delivery.event_key)))


def _as_raw(delivery: NewDelivery) -> NewDelivery:
    """The same event as bytes, dead, for a person to look at; its lane is not held up by it."""
    try:
        raw = json.dumps(delivery.payload).encode()  # pure ASCII, whatever the payload holds
    except (TypeError, ValueError, RecursionError):
        raw = delivery.event_key.encode(errors="backslashreplace")
    return replace(
        delivery,
        type=_plain(delivery.type),
        event_key="raw:" + hashlib.sha256(raw).hexdigest(),
        lane_key="",
        payload=None,
        answer=None,
        raw=raw,
        status="dead",
        error_code="unstorable",
        note="the database refuses what it says; only its bytes are kept",
        consent_address=None,
        opted_out=None,
    )


def _plain(name: str) -> str:
    """A type fit to be stored, for one that may be what was refused."""
    return name.encode("ascii", errors="backslashreplace").decode().replace("\x00", "")


def _short(key: str) -> str:
    """The key, or its hash when an index could not hold it."""
    plain = key.encode(errors="backslashreplace")
    return key if len(plain) <= LONGEST_KEY else hashlib.sha256(plain).hexdigest()


def _as_delivery(
    endpoint: Source, event: InboundEvent, *, status: str = "received", answer: dict[str, Any] | None = None
) -> NewDelivery:
    owned = endpoint.org_id != UNOWNED_ORG_ID
    consent = event.consent if owned else None  # it takes effect when the owner is known
    return NewDelivery(
        org_id=endpoint.org_id,
        integration_id=endpoint.integration_id,
        provider=event.provider,
        type=event.type,
        event_key=_short(event.event_key),
        lane_key=_short(event.lane_key or f"event:{event.event_key}"),
        payload=event.payload,
        occurred_at=event.occurred_at,
        status=status,
        answer=answer,
        parked=not owned,
        error_code=None if owned else UNOWNED,
        note=event.remark,
        consent_address=consent.address if consent else None,
        opted_out=consent.opted_out if consent else None,
    )
