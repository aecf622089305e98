"""Stores what came in: once, in one durable commit, before anybody is told that it arrived.

Owns the promise behind a 2xx. Every event of every provider passes here, and nothing else writes
the inbox for a webhook. What the database cannot take within two seconds goes to the spool, and so does what would
overtake earlier events of its lane there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, cast
from uuid import UUID

from sqlalchemy.exc import DBAPIError

from app.errors import ConfigurationError, DatabaseUnavailable
from app.integrations.events import InboundEvent, WebhookRequest
from app.models.deliveries import UNOWNED, UNOWNED_ORG_ID
from app.models.inbox import NewDelivery, insert_webhooks
from app.observability import context, metrics
from app.observability.errors import report
from app.observability.logging import get_logger, tell_all
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
    """What intake did. ``delivery_id`` is None for an event that had been stored before, or is in the spool."""

    delivery_id: int | None
    spooled: bool = False

    @property
    def duplicate(self) -> bool:
        """Whether the event had been stored before."""
        return self.delivery_id is None and not self.spooled


@dataclass(frozen=True, slots=True)
class Told:
    """What is said of an event that came in; ``more`` are ids and times beside it."""

    accepted: Accepted
    org_id: UUID
    provider: str
    type: str
    more: Mapping[str, Any]

    def fields(self) -> dict[str, Any]:
        """As they stand in its line."""
        return {
            "delivery_id": self.accepted.delivery_id,
            "duplicate": self.accepted.duplicate,
            "org_id": str(self.org_id),
            "provider": self.provider,
            "type": self.type,
            **self.more,
        }


class Source(Protocol):
    """Where an event comes from: an ``Endpoint``, or what stands in for one."""

    @property
    def org_id(self) -> UUID:
        """Whose event it is."""

    @property
    def integration_id(self) -> UUID:
        """Within what its key is unique."""


def accept(platform: Platform, endpoint: Source, event: InboundEvent) -> Accepted:
    """Store the event and ring the bell, or put it into the spool, where it is safe too.

    Raises DatabaseUnavailable when neither can be: then it must not be answered with 2xx. Safe to call twice: the
    second is a duplicate. Consent (STOP, START) takes effect in the same commit.
    """
    if _overtakes(platform, endpoint, event):
        return Accepted(None, spooled=True)
    try:
        accepted = _store(platform, as_delivery(endpoint, event), size=len(event.request.body) if event.request else 0)
    except (DatabaseUnavailable, ConfigurationError, DBAPIError) as error:
        return _spool(platform, endpoint, event, error)
    platform.bell.ring()
    tell(Told(accepted, endpoint.org_id, event.provider, event.type, {"duration_ms": context.request_ms()}))
    return accepted


def accept_together(platform: Platform, events: Sequence[tuple[Endpoint, InboundEvent]]) -> list[Accepted]:
    """Store events that came at the same time, in one durable commit, and ring the bell; what became of each.

    Their keys must differ, and none of their lanes be in the spool. Raises DatabaseUnavailable when they could not be
    stored now (`keep` them then), and whatever is wrong with any one of them: then each is to be accepted alone, which
    is safe whatever has been stored. Tells nothing.
    """
    deliveries = [as_delivery(endpoint, event) for endpoint, event in events]
    accepted = [Accepted(delivery_id) for delivery_id in platform.groups.store_all(deliveries)]
    platform.bell.ring()
    for one, delivery in zip(accepted, deliveries, strict=True):
        metrics.webhook_stored(delivery.provider, delivery.type, delivery.status, duplicate=one.duplicate)
    return accepted


def keep(platform: Platform, endpoint: Endpoint, event: InboundEvent) -> Accepted:
    """Put an event that the database did not take into the spool. Raises DatabaseUnavailable when that takes none."""
    platform.spool.keep_event(endpoint, event)
    return Accepted(None, spooled=True)


def tell(*told: Told) -> None:
    """The one line about each event that came in."""
    tell_all(__name__, "webhook.accepted", [one.fields() for one in told])


def keep_answered(platform: Platform, endpoint: Endpoint, event: InboundEvent, answer: dict[str, Any]) -> Accepted:
    """Store an event that was answered while somebody waited, with the answer; nobody is to handle it."""
    if retention.stores_nothing(platform, endpoint.org_id):
        event = replace(event, payload=retention.without_words(event.provider, event.payload) or {})
        answer = retention.answer_without_words(event.provider, answer) or {}
    try:
        return _store(platform, as_delivery(endpoint, event, status="processed", answer=answer))
    except (DatabaseUnavailable, ConfigurationError, DBAPIError) as error:
        return _spool(platform, endpoint, event, error, answer=answer)


def keep_malformed(
    platform: Platform, endpoint: Endpoint, raw: bytes, *, reason: str, request: WebhookRequest | None = None
) -> Accepted:
    """Keep a request that is authentic and cannot be understood: raw, dead, for a person to look at.

    With the ``request`` it came in, it can wait in the spool. Of an organization that wants no words stored only
    that there was one is kept.
    """
    try:
        return _store(platform, as_malformed(platform, endpoint, endpoint.provider, raw, reason=reason))
    except DatabaseUnavailable:
        if request is None:
            raise
        platform.spool.keep_request(endpoint, request)
        return Accepted(None, spooled=True)


def store_late(platform: Platform, deliveries: Sequence[NewDelivery]) -> list[Accepted | None]:
    """Store events that have waited in the spool, in their order; what became of each. Raises DatabaseUnavailable.

    All in one commit; or, when one of them spoils it, each in its own, and None for the one.
    """
    distinct = {(one.integration_id, one.event_key): one for one in reversed(deliveries)}
    group = [one for one in deliveries if distinct[one.integration_id, one.event_key] is one]
    try:
        with platform.database.intake() as session:
            stored = insert_webhooks(session, group)
    except (DBAPIError, TypeError, ValueError):
        return [_store_alone(platform, delivery) for delivery in deliveries]
    taken: list[Accepted | None] = []
    for one in deliveries:
        assert one.integration_id is not None
        is_first = distinct[one.integration_id, one.event_key] is one
        accepted = Accepted(stored.get((one.integration_id, one.event_key)) if is_first else None)
        metrics.webhook_stored(one.provider, one.type, one.status, duplicate=accepted.duplicate)
        taken.append(accepted)
    return taken


def _store_alone(platform: Platform, delivery: NewDelivery) -> Accepted | None:
    try:
        return _store(platform, delivery)
    except DBAPIError as error:
        report(error, where="thread", event="spool.line_not_stored", provider=delivery.provider, type=delivery.type)
        return None


def _overtakes(platform: Platform, endpoint: Source, event: InboundEvent) -> bool:
    """Whether it had to wait in the spool behind earlier ones. A spool that takes no more is no reason to refuse it:
    handlers cope with another order, and nobody with a lost event."""
    if event.request is None or not platform.spool.is_ahead_of(cast("Endpoint", endpoint), event):
        return False
    try:
        platform.spool.keep_event(cast("Endpoint", endpoint), event)
    except DatabaseUnavailable:
        log.warning("webhook.overtakes", org_id=str(endpoint.org_id), provider=event.provider, type=event.type)
        return False
    return True


def _spool(
    platform: Platform, endpoint: Source, event: InboundEvent, error: Exception, *, answer: dict[str, Any] | None = None
) -> Accepted:
    """It could not be stored: keep it on the disk. Without a request to keep (our own canary) it is an error."""
    if event.request is None:
        raise error
    if not isinstance(error, DatabaseUnavailable):
        report(error, where="web", event="webhook.not_stored", provider=event.provider, type=event.type)
    platform.spool.keep_event(cast("Endpoint", endpoint), event, answer=answer)
    return Accepted(None, spooled=True)


def _store(platform: Platform, delivery: NewDelivery, *, size: int = 0) -> Accepted:
    try:
        accepted = _insert(platform, delivery, size)
    except _Unstorable:
        log.error("webhook.unstorable", org_id=str(delivery.org_id), provider=delivery.provider, type=delivery.type)
        delivery = _as_raw(delivery)
        if retention.stores_nothing(platform, delivery.org_id):
            delivery = replace(delivery, raw=None)
        accepted = _insert(platform, delivery, size)
    metrics.webhook_stored(delivery.provider, delivery.type, delivery.status, duplicate=accepted.duplicate)
    return accepted


class _Unstorable(Exception):
    """The database refuses this event's data, whenever it is tried."""


def _insert(platform: Platform, delivery: NewDelivery, size: int) -> Accepted:
    try:
        return Accepted(platform.groups.store(delivery, size=size))
    except DBAPIError as error:
        state = str(getattr(error.orig, "pgcode", ""))
        if state.startswith(_REFUSED_DATA):
            raise _Unstorable from None
        if state.startswith(_NOT_NOW):
            raise DatabaseUnavailable("the database did not store it in time") from None
        raise
    except (TypeError, ValueError):  # orjson: half a surrogate pair, a number beyond 64 bits, too deep
        raise _Unstorable from None


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


def as_malformed(platform: Platform, source: Source, provider: str, raw: bytes, *, reason: str) -> NewDelivery:
    """What is kept of a request that is authentic and cannot be understood."""
    nothing = retention.stores_nothing(platform, source.org_id)
    return NewDelivery(
        org_id=source.org_id,
        integration_id=source.integration_id,
        provider=provider,
        type="malformed",
        event_key="raw:" + hashlib.sha256(raw).hexdigest(),
        lane_key="",
        payload=None,
        raw=None if nothing else raw,
        status="dead",
        error_code="malformed_event",
        note=reason,
    )


def as_delivery(
    endpoint: Source,
    event: InboundEvent,
    *,
    status: str = "received",
    answer: dict[str, Any] | None = None,
    received_at: datetime | None = None,
) -> NewDelivery:
    """The event as it is stored; with ``received_at`` for one that came in earlier."""
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
        received_at=received_at,
        status=status,
        answer=answer,
        parked=not owned,
        error_code=None if owned else UNOWNED,
        note=event.remark,
        consent_address=consent.address if consent else None,
        opted_out=consent.opted_out if consent else None,
    )
