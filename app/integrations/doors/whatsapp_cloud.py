"""Meta's WhatsApp Cloud API: messages that come in, news of those that went out, and changes of the account.

Owns its signature, which covers the body and no time, its greeting, and what makes two posts the same one. One
post may hold several messages; they are one event here, as they were sent.
Source: developers.facebook.com, "Webhooks: getting started" and "Cloud API: webhooks".
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Iterator, Mapping
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
    hashed,
    plain_id,
    read_moment,
    read_object,
    text_at,
    wire,
)

PROVIDER = "whatsapp-cloud"
PREFIX = "sha256="
EVENTS = ("message", "status", "account")
_CHALLENGE = re.compile(r"[\w.-]{1,200}", re.ASCII)


class Credentials(DoorCredentials):
    """The Meta app's secret, which signs, and the token that was typed beside the callback URL."""

    app_secret: Secret = Field(description="of the Meta app, under App settings, Basic")
    verify_token: Secret = Field(description="what is typed at Meta as the verify token")


def verify(request: WebhookRequest, credentials: Credentials, *, now: datetime) -> None:
    """Raise unless the app's secret signed this body. Meta signs no time, so ``now`` decides nothing."""
    del now
    presented = request.headers.get("x-hub-signature-256", "").strip()
    if not presented:
        raise SignatureMissing("the header X-Hub-Signature-256 is missing")
    if not hmac.compare_digest(wire(presented), _signature(credentials.app_secret.get_secret_value(), request.body)):
        raise SignatureInvalid("the signature does not match")


def greet(query: Mapping[str, str], credentials: Credentials) -> str:
    """The challenge, for whoever knows the verify token: Meta asks when the callback URL is saved."""
    token, challenge = query.get("hub.verify_token", ""), query.get("hub.challenge", "")
    if query.get("hub.mode") != "subscribe" or not token:
        raise SignatureMissing("this is not Meta's greeting")
    if not hmac.compare_digest(token.encode(errors="replace"), credentials.verify_token.get_secret_value().encode()):
        raise SignatureInvalid("the verify token is another")
    if not _CHALLENGE.fullmatch(challenge):
        raise MalformedEvent("the greeting has no challenge")
    return challenge


def parse(request: WebhookRequest) -> InboundEvent:
    """``message.inbound``, ``message.status``, or the name of the field that changed."""
    body = read_object(request)
    changes = list(_changes(body))
    if not changes:
        raise MalformedEvent("the post has no changes")
    kinds = {kind for _, _, kind in changes}
    items = [item for _, value, _ in changes for item in _items(value)]
    talks = {_talk(value, item) for _, value, _ in changes for item in _items(value)}
    return InboundEvent(
        provider=PROVIDER,
        type=min(kinds)[:LONGEST_TYPE] if len(kinds) == 1 else "several",
        event_key=_key(items) or f"post:{hashed(request.body.decode(errors='replace'))}",
        lane_key=f"whatsapp:{talks.pop()}" if len(talks) == 1 else f"account:{hashed(*(one for one, _, _ in changes))}",
        payload=body,
        occurred_at=min(filter(None, (read_moment(item.get("timestamp")) for item in items)), default=None),
    )


def _changes(body: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Of each change the account's id, what it says, and its kind. Raises MalformedEvent for another object's."""
    if body.get("object") != "whatsapp_business_account":
        raise MalformedEvent("the post is not of a WhatsApp business account")
    for entry in _objects(body.get("entry")):
        for change in _objects(entry.get("changes")):
            value = change.get("value")
            value = value if isinstance(value, dict) else {}
            field = text_at(change, "field") or "unknown"
            kind = "message.inbound" if value.get("messages") else "message.status" if value.get("statuses") else field
            yield str(entry.get("id")), value, kind


def _items(value: dict[str, Any]) -> list[dict[str, Any]]:
    """The messages and the news in a change."""
    return [*_objects(value.get("messages")), *_objects(value.get("statuses"))]


def _objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _talk(value: dict[str, Any], item: dict[str, Any]) -> str:
    """The conversation: who writes with which of our numbers; hashed, because it is a person's number."""
    person = text_at(item, "from") or text_at(item, "recipient_id") or ""
    return hashed(text_at(value, "metadata", "phone_number_id") or "", person)


def _key(items: list[dict[str, Any]]) -> str | None:
    """The ids of all that is in it; of news also which. None when anything has no id."""
    ids = [text_at(item, "id") for item in items]
    if not ids or None in ids:
        return None
    names = sorted(f"{one}:{item.get('status', '')}" for one, item in zip(ids, items, strict=True))
    return plain_id(names[0].rstrip(":")) if len(names) == 1 else hashed(*names)


def sample(event: str, secret: str, now: datetime) -> Sample:
    """A text that came in, news of one that went out, or a review of the account; signed with the app's secret."""
    stamp, message_id = str(int(now.timestamp())), f"wamid.{secrets.token_hex(16)}"
    value: dict[str, Any] = {
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": "15550000000", "phone_number_id": "100000000000001"},
    }
    message = {"id": message_id, "from": "15550000001", "timestamp": stamp, "type": "text", "text": {"body": "Hello"}}
    status = {"id": message_id, "recipient_id": "15550000001", "timestamp": stamp, "status": "delivered"}
    said = {
        "message": ("messages", {**value, "messages": [message]}),
        "status": ("messages", {**value, "statuses": [status]}),
        "account": ("account_update", {"event": "VERIFIED_ACCOUNT", "phone_number": "15550000000"}),
    }
    field, said_value = said[event]
    changes = [{"field": field, "value": said_value}]
    entry = [{"id": "200000000000002", "time": int(stamp), "changes": changes}]
    body = orjson.dumps({"object": "whatsapp_business_account", "entry": entry})
    signature = _signature(secret, body).decode()
    return Sample({"Content-Type": "application/json", "X-Hub-Signature-256": signature}, body)


def _signature(secret: str, body: bytes) -> bytes:
    return (PREFIX + hmac.new(secret.encode(), body, "sha256").hexdigest()).encode()


WHATSAPP_CLOUD = FrontDoor(PROVIDER, Credentials, verify, parse, events=EVENTS, sample=sample, greet=greet)
