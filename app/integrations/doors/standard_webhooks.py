"""Standard Webhooks: any sender that signs as the specification says (Svix's customers among them).

Owns its headers, under both of their names, and what makes two messages the same one: the sender's own id.
Source: github.com/standard-webhooks/standard-webhooks, spec/standard-webhooks.md.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import datetime
from typing import Self, TypeVar

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import Field, SecretStr, model_validator

from app.errors import MalformedEvent, SignatureInvalid, SignatureMissing
from app.integrations import webhook_scheme
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

PROVIDER = "standard-webhooks"
PREFIXES = ("webhook-", "svix-")

T = TypeVar("T")


class Credentials(DoorCredentials):
    """The sender's signing secret, or its public key where it signs with Ed25519; with both, either proves it."""

    signing_secret: Secret | None = Field(None, description="whsec_ and base64")
    public_key: Secret | None = Field(None, description="whpk_ and base64")

    @model_validator(mode="after")
    def _check_keys(self) -> Self:
        if self.signing_secret is None and self.public_key is None:
            raise ValueError("signing_secret is needed (or public_key)")
        self.key()
        self.verifying_key()
        return self

    def key(self) -> bytes | None:
        """What the sender signs with, where both know it."""
        return _read("signing_secret", webhook_scheme.read_secret, self.signing_secret)

    def verifying_key(self) -> Ed25519PublicKey | None:
        """What its signatures are checked with, where it alone can sign."""
        return _read("public_key", webhook_scheme.read_public_key, self.public_key)


def _read(name: str, read: Callable[[str], T], value: SecretStr | None) -> T | None:
    try:
        return read(value.get_secret_value()) if value is not None else None
    except ValueError as error:
        raise ValueError(f"{name} {error}") from None


def verify(request: WebhookRequest, credentials: Credentials, *, now: datetime) -> None:
    """Raise unless one of its signatures is over this very id, time and body, and the time is near ``now``."""
    message_id, stamp, signatures = (_header(request, name) for name in ("id", "timestamp", "signature"))
    if not (message_id and stamp and signatures):
        raise SignatureMissing("a header of Standard Webhooks is missing")
    check_age(stamp, now)
    proven = webhook_scheme.holds(
        signatures,
        webhook_scheme.signed_content(wire(message_id), wire(stamp), request.body),
        key=credentials.key(),
        public_key=credentials.verifying_key(),
    )
    if not proven:
        raise SignatureInvalid("no signature matches")


def parse(request: WebhookRequest) -> InboundEvent:
    """The message as it was sent; its order among others means nothing, so it has a lane of its own."""
    message_id = _header(request, "id")
    if not message_id:
        raise MalformedEvent("the message has no id")
    body = read_object(request)
    return InboundEvent(
        provider=PROVIDER,
        type=(text_at(body, "type") or "message")[:LONGEST_TYPE],
        event_key=plain_id(message_id),
        lane_key="",
        payload=body,
        occurred_at=read_moment(body.get("timestamp")),
    )


def sample(event: str, secret: str, now: datetime) -> Sample:
    """A message of this type, signed with ``whsec_...``."""
    stamp = str(int(now.timestamp()))
    message_id = f"msg_{secrets.token_hex(12)}"
    body = orjson.dumps({"type": event, "timestamp": now.isoformat(), "data": {"id": secrets.token_hex(8)}})
    content = webhook_scheme.signed_content(message_id.encode(), stamp.encode(), body)
    headers = {
        "Content-Type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": stamp,
        "webhook-signature": webhook_scheme.sign(webhook_scheme.read_secret(secret), content),
    }
    return Sample(headers, body)


def _header(request: WebhookRequest, name: str) -> str:
    """By the specification's name, else by Svix's older one."""
    return next((value for prefix in PREFIXES if (value := request.headers.get(prefix + name, "").strip())), "")


STANDARD_WEBHOOKS = FrontDoor(
    PROVIDER, Credentials, verify, parse, events=("contact.created", "invoice.paid"), sample=sample
)
