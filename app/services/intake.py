"""Stores what came in: once, in one durable commit, before anybody is told that it arrived.

Owns the promise behind a 2xx. Every event of every provider passes here, and nothing else writes
the inbox for a webhook.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from app.integrations.events import InboundEvent
from app.models.inbox import NewDelivery, insert_webhooks
from app.observability.logging import get_logger

if TYPE_CHECKING:
    from app.services.directory import Endpoint
    from app.services.platform import Platform

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Accepted:
    """What intake did. ``delivery_id`` is None for an event that had been stored before."""

    delivery_id: int | None

    @property
    def duplicate(self) -> bool:
        """Whether the event had been stored before."""
        return self.delivery_id is None


def accept(platform: Platform, endpoint: Endpoint, event: InboundEvent) -> Accepted:
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
    )
    return accepted


def keep_answered(platform: Platform, endpoint: Endpoint, event: InboundEvent, answer: dict[str, Any]) -> Accepted:
    """Store an event that was answered while somebody waited, with the answer; nobody is to handle it."""
    return _store(platform, _as_delivery(endpoint, event, status="processed", answer=answer))


def keep_malformed(platform: Platform, endpoint: Endpoint, raw: bytes, *, reason: str) -> Accepted:
    """Keep a request that is authentic and cannot be understood: raw, dead, for a person to look at."""
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
            raw=raw,
            status="dead",
            error_code="malformed_event",
            note=reason,
        ),
    )


def _store(platform: Platform, delivery: NewDelivery) -> Accepted:
    assert delivery.integration_id is not None
    with platform.database.intake() as session:
        stored = insert_webhooks(session, [delivery])
    return Accepted(stored.get((delivery.integration_id, delivery.event_key)))


def _as_delivery(
    endpoint: Endpoint, event: InboundEvent, *, status: str = "received", answer: dict[str, Any] | None = None
) -> NewDelivery:
    return NewDelivery(
        org_id=endpoint.org_id,
        integration_id=endpoint.integration_id,
        provider=event.provider,
        type=event.type,
        event_key=event.event_key,
        lane_key=event.lane_key or f"event:{event.event_key}",
        payload=event.payload,
        occurred_at=event.occurred_at,
        status=status,
        answer=answer,
        consent_address=event.consent.address if event.consent else None,
        opted_out=event.consent.opted_out if event.consent else None,
    )
