"""From a verified request to one InboundEvent: its type, its identity, its lane, its time.

Owns what makes two of Vapi's messages the same one. Vapi sends no message id (docs.vapi.ai, "Server
events"), so identity is put together from the business facts. A message id header of an HMAC plan is
not used: nothing says that it stays the same when a message is sent again.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any, Literal

import orjson

from app.errors import MalformedEvent
from app.integrations.events import InboundEvent, WebhookRequest
from app.integrations.reading import read_json, scrubbed
from app.integrations.vapi.facts import moment, section, status_of, text
from app.integrations.vapi.tools import tool_calls_of

PROVIDER = "vapi"
LONGEST_KEY = 200
LONGEST_TYPE = 100
# Longer ids are replaced by their hash, so that keys stay keys; Vapi's own are UUIDs.
_PLAIN_ID = re.compile(r"[\w.:-]{1,100}", re.ASCII)
# Beside call, type and time: two speech-updates of one moment differ in these.
_DISTINGUISHING = ("role", "status", "transcriptType")

_ANSWERED: dict[str, Literal["tool-calls", "assistant-request", "transfer-destination-request"]] = {
    "tool-calls": "tool-calls",
    "assistant-request": "assistant-request",
    "transfer-destination-request": "transfer-destination-request",
}


def parse(request: WebhookRequest) -> InboundEvent:
    """Understand a message; every type is accepted, known or not.

    The payload is ``message`` itself, scrubbed of secrets. The legacy ``function-call`` becomes
    ``tool-calls`` and ``transcript[transcriptType="final"]`` becomes ``transcript``. Raises MalformedEvent.
    """
    try:
        body = read_json(request.body)
    except ValueError:
        raise MalformedEvent("the body is not JSON") from None
    if not isinstance(body, dict) or not isinstance(body.get("message"), dict):
        raise MalformedEvent("the body has no message object")
    message: dict[str, Any] = scrubbed(body["message"])
    kind = _kind(message)
    call_id = text(section(message, "call").get("id"))
    return InboundEvent(
        provider=PROVIDER,
        type=kind,
        event_key=_event_key(kind, call_id, message),
        lane_key=f"call:{_id(call_id)}" if call_id else "",
        payload=message,
        occurred_at=moment(message.get("timestamp")),
        awaits_answer=_ANSWERED.get(kind),
    )


def _kind(message: dict[str, Any]) -> str:
    given = text(message.get("type"))
    if given is None:
        raise MalformedEvent("the message has no type")
    if given == "function-call":
        return "tool-calls"
    if given.startswith("transcript["):
        return "transcript"
    return given[:LONGEST_TYPE]


def _event_key(kind: str, call_id: str | None, message: dict[str, Any]) -> str:
    """The same message sent again has the same key; presigned links differ between sendings and never count."""
    stamp = message.get("timestamp")
    if call_id is None:
        return _hashed(kind, str(stamp), _content(message))
    call = _id(call_id)
    if kind == "end-of-call-report":
        return f"{kind}:{call}"
    if kind == "tool-calls" and (tools := tool_calls_of(message)):
        return _key(kind, call, *(tool.id for tool in tools))
    if kind == "status-update" and (status := status_of(message)).status:
        return _key(kind, call, status.status, *filter(None, [status.ended_reason]))
    if stamp is None:
        return _hashed(kind, call_id, _content(message))
    return _hashed(kind, call_id, str(stamp), *(str(message.get(name)) for name in _DISTINGUISHING))


def _key(kind: str, *parts: str | None) -> str:
    """The parts, readable; hashed when there are several ids, or when they would not fit."""
    plain = ":".join([kind, *(_id(part or "") for part in parts)])
    return plain if len(plain) <= LONGEST_KEY else _hashed(kind, *(part or "" for part in parts))


def _hashed(kind: str, *parts: str) -> str:
    digest = hashlib.sha256(orjson.dumps([kind, *parts])).hexdigest()
    return f"{kind}:{digest}"


def _id(value: str) -> str:
    return value if _PLAIN_ID.fullmatch(value) else hashlib.sha256(value.encode()).hexdigest()


def _content(message: dict[str, Any]) -> str:
    """All a message says, for those that lack what would identify them."""
    return orjson.dumps(_without_presigned(message), option=orjson.OPT_SORT_KEYS).decode()


def _without_presigned(value: Any) -> Any:
    """What stays the same when Vapi sends a report again: links lose their query, presigned fields go."""
    if isinstance(value, dict):
        return {key: _without_presigned(item) for key, item in value.items() if not key.lower().startswith("presigned")}
    if isinstance(value, list):
        return [_without_presigned(item) for item in value]
    if isinstance(value, str) and value.startswith(("http://", "https://")):
        return value.partition("?")[0]
    return value
