"""Stripe: events of an account, signed with the secret of their webhook endpoint.

Owns its header and what orders its events. Stripe promises no order; events about one customer, or else about
one object, are handled as they came. Source: docs.stripe.com/webhooks, and Stripe's own library.
"""

from __future__ import annotations

import hmac
import secrets
from datetime import datetime
from typing import Any

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
    check_age,
    plain_id,
    read_moment,
    read_object,
    text_at,
    wire,
)

PROVIDER = "stripe"
MOST_PARTS = 16
EVENTS = ("checkout.session.completed", "invoice.paid", "customer.subscription.deleted")
_SECRETS = frozenset({"client_secret"})  # of a payment: whoever has it can confirm it


class Credentials(DoorCredentials):
    """The endpoint's signing secret, as Stripe's dashboard or CLI shows it."""

    signing_secret: Secret = Field(description="whsec_...")


def verify(request: WebhookRequest, credentials: Credentials, *, now: datetime) -> None:
    """Raise unless one of the ``v1`` signatures is over the time and the body, and the time is near ``now``.

    While a secret is being rolled Stripe sends a signature of each. The secret is a key as it is written.
    """
    header = request.headers.get("stripe-signature", "").strip()
    if not header:
        raise SignatureMissing("the header Stripe-Signature is missing")
    parts = [part.strip().partition("=") for part in header.split(",")[:MOST_PARTS]]
    stamps = [value for name, _, value in parts if name == "t"]
    if len(stamps) != 1:
        raise SignatureInvalid("the signature has no timestamp")
    check_age(stamps[0], now)
    expected = _signature(credentials.signing_secret.get_secret_value(), stamps[0], request.body)
    found = False
    for name, _, value in parts:
        found |= name == "v1" and hmac.compare_digest(wire(value), expected.encode())
    if not found:
        raise SignatureInvalid("no signature matches")


def parse(request: WebhookRequest) -> InboundEvent:
    """An event, whole (``event``) or thin (``v2.core.event``); its id is Stripe's own."""
    body = read_object(request, secrets=_SECRETS)
    event_id, kind = text_at(body, "id"), text_at(body, "type")
    if event_id is None or kind is None:
        raise MalformedEvent("the event has no id or no type")
    about = _about(body)
    return InboundEvent(
        provider=PROVIDER,
        type=kind[:LONGEST_TYPE],
        event_key=plain_id(event_id),
        lane_key=f"stripe:{plain_id(about)}" if about else "",
        payload=body,
        occurred_at=read_moment(body.get("created")),
    )


def sample(event: str, secret: str, now: datetime) -> Sample:
    """An event of this type about a customer, signed with ``whsec_...``."""
    about = {"id": f"obj_{secrets.token_hex(8)}", "object": event.rpartition(".")[0], "customer": "cus_simulated"}
    body = orjson.dumps(
        {
            "id": f"evt_{secrets.token_hex(12)}",
            "object": "event",
            "api_version": "2026-09-30.clover",
            "created": int(now.timestamp()),
            "livemode": False,
            "type": event,
            "data": {"object": about},
        }
    )
    stamp = str(int(now.timestamp()))
    signature = f"t={stamp},v1={_signature(secret, stamp, body)}"
    return Sample({"Content-Type": "application/json; charset=utf-8", "Stripe-Signature": signature}, body)


def _signature(secret: str, stamp: str, body: bytes) -> str:
    return hmac.new(secret.encode(), stamp.encode() + b"." + body, "sha256").hexdigest()


def _about(body: dict[str, Any]) -> str | None:
    """Whose event it is: the customer's, else the object's itself."""
    return (
        text_at(body, "data", "object", "customer")
        or text_at(body, "data", "object", "id")
        or text_at(body, "related_object", "id")
    )


STRIPE = FrontDoor(PROVIDER, Credentials, verify, parse, events=EVENTS, sample=sample)
