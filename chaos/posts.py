"""Webhooks as the providers make them: what they say, and how they prove where they come from.

Owns the shapes and signatures. Sends nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from twilio.request_validator import RequestValidator

from app.integrations.events import WebhookRequest
from app.integrations.vapi import parse
from chaos.people import Business

JSON, FORM = "application/json", "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class Post:
    """One request, ready."""

    path: str
    body: bytes
    headers: Mapping[str, str]


def vapi(business: Business, kind: str, call_id: str, caller: str, fields: dict[str, Any]) -> Post:
    """A server message, proven by the secret as Vapi does; Vapi publishes no library that would sign it."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    call = {"id": call_id, "type": "inboundPhoneCall", "createdAt": now, "customer": {"number": caller}}
    number = {"number": business.number, "provider": "twilio"}
    message = {"type": kind, "timestamp": int(time.time() * 1000), "call": call, "phoneNumber": number, **fields}
    body = json.dumps({"message": message}).encode()
    return Post(business.vapi_path, body, {"Content-Type": JSON, "X-Vapi-Secret": business.vapi_secret})


def key_of(post: Post) -> str:
    """Under which key the product stores a message that bears no identity of its own."""
    return parse(WebhookRequest("POST", post.path, {}, post.body)).event_key


def twilio(business: Business, base_url: str, sid: str, sender: str, words: str) -> Post:
    """A text that came in, signed by Twilio's own library."""
    form = {
        "MessageSid": sid,
        "SmsSid": sid,
        "AccountSid": business.account_sid,
        "From": sender,
        "To": business.number,
        "Body": words,
        "NumMedia": "0",
        "ToCity": "",
        "ApiVersion": "2010-04-01",
    }
    signature = RequestValidator(business.auth_token).compute_signature(base_url + business.twilio_path, form)
    headers = {"Content-Type": FORM, "X-Twilio-Signature": signature}
    return Post(business.twilio_path, urlencode(form).encode(), headers)


def report_of(call_id: str, reason: str = "customer-ended-call") -> dict[str, Any]:
    """What Vapi tells when a call is over."""
    said = "AI: Good morning.\nUser: I would like an appointment."
    return {
        "endedReason": reason,
        "startedAt": "2026-03-01T09:00:00.000Z",
        "endedAt": "2026-03-01T09:01:30.000Z",
        "durationSeconds": 90,
        "cost": 0.0712,
        "analysis": {"summary": "An appointment was asked for.", "successEvaluation": "true"},
        "artifact": {"transcript": said, "recordingUrl": f"https://recordings.example/{call_id}.wav"},
    }


def said_in(answer: bytes, tool_call_id: str) -> str:
    """The sentence of a tool's answer; nothing when it is not one for this very question."""
    try:
        (result,) = json.loads(answer)["results"]
        return str(result["result"]) if result["toolCallId"] == tool_call_id else ""
    except (ValueError, KeyError, TypeError):
        return ""
