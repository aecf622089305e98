"""Cal.com: bookings that were made, moved, cancelled or paid there, and the other triggers of its webhooks.

Owns its signature, which covers the body and no time, and what makes two posts the same one: Cal.com sends no id.
Source: cal.com/docs, "Webhooks", and its own ``createWebhookSignature``.
"""

from __future__ import annotations

import hmac
import secrets
from datetime import datetime, timedelta

import orjson
from pydantic import Field

from app.errors import MalformedEvent, SignatureInvalid, SignatureMissing
from app.integrations.events import InboundEvent, WebhookRequest
from app.integrations.front_door import (
    LONGEST_TYPE,
    DoorCredentials,
    FrontDoor,
    Sample,
    Secret,
    hashed,
    plain_id,
    read_moment,
    read_object,
    text_at,
    wire,
)

PROVIDER = "cal-com"
EVENTS = ("BOOKING_CREATED", "BOOKING_RESCHEDULED", "BOOKING_CANCELLED")
UNSIGNED = "no-secret-provided"  # what the header says when none was typed at Cal.com


class Credentials(DoorCredentials):
    """The secret typed beside the subscriber URL."""

    signing_secret: Secret = Field(description="the webhook's secret at Cal.com")


def verify(request: WebhookRequest, credentials: Credentials, *, now: datetime) -> None:
    """Raise unless the secret signed this body. Cal.com signs no time, so ``now`` decides nothing."""
    del now
    presented = request.headers.get("x-cal-signature-256", "").strip()
    if not presented or presented == UNSIGNED:
        raise SignatureMissing("the header X-Cal-Signature-256 holds no signature")
    if not hmac.compare_digest(
        wire(presented), _signature(credentials.signing_secret.get_secret_value(), request.body)
    ):
        raise SignatureInvalid("the signature does not match")


def parse(request: WebhookRequest) -> InboundEvent:
    """A trigger; those of one booking are handled as they came. A booking that is moved goes on under a new id."""
    body = read_object(request)
    trigger, stamp = text_at(body, "triggerEvent"), text_at(body, "createdAt")
    if trigger is None:
        raise MalformedEvent("the post names no trigger")
    booking = text_at(body, "payload", "uid") or text_at(body, "payload", "bookingUid") or text_at(body, "uid")
    is_named = booking is not None and stamp is not None
    return InboundEvent(
        provider=PROVIDER,
        type=trigger[:LONGEST_TYPE],
        event_key=plain_id(f"{trigger}:{booking}:{stamp}" if is_named else hashed(request.body.hex())),
        lane_key=f"booking:{plain_id(booking)}" if booking else "",
        payload=body,
        occurred_at=read_moment(stamp),
    )


def sample(event: str, secret: str, now: datetime) -> Sample:
    """A booking of half an hour tomorrow, and what became of it."""
    starts = now + timedelta(days=1)
    booking = {
        "uid": secrets.token_urlsafe(16),
        "title": "30min between the business and a guest",
        "startTime": starts.isoformat(),
        "endTime": (starts + timedelta(minutes=30)).isoformat(),
        "status": "CANCELLED" if event == "BOOKING_CANCELLED" else "ACCEPTED",
    }
    body = orjson.dumps({"triggerEvent": event, "createdAt": now.isoformat(), "payload": booking})
    signature = _signature(secret, body).decode()
    return Sample({"Content-Type": "application/json", "X-Cal-Signature-256": signature}, body)


def _signature(secret: str, body: bytes) -> bytes:
    return hmac.new(secret.encode(), body, "sha256").hexdigest().encode()


CAL_COM = FrontDoor(PROVIDER, Credentials, verify, parse, events=EVENTS, sample=sample)
