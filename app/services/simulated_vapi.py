"""What Vapi would send: every server message it is known to send, and any other by its name.

Owns the shapes (docs.vapi.ai, "Server events", and the ``ServerMessage*`` types of Vapi's server SDK)
and the three ways Vapi proves itself. Sends nothing.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from uuid import NAMESPACE_URL, uuid4, uuid5

from app.integrations.vapi import HmacPlan, VapiCredentials
from app.services.credentials import parse_credentials
from app.services.simulate import Outgoing

Scheme = Literal["secret", "bearer", "hmac"]
SCHEMES: tuple[Scheme, ...] = ("secret", "bearer", "hmac")

CALLER = "+12025550143"  # 555-01xx is kept for fiction
NUMBER = "+12025550188"
SAID = ("Good morning, how can I help you?", "I would like an appointment.")


@dataclass(frozen=True, slots=True)
class Scene:
    """The call a message is about. Without a caller it is a web call, which has no numbers."""

    call_id: str = field(default_factory=lambda: str(uuid4()))
    caller: str | None = CALLER
    number: str = NUMBER
    assistant_id: str = "5f0f7ac4-1d1c-4a7e-9a3c-7f1c5a6b2d10"
    status: str = "in-progress"
    ended_reason: str = "customer-ended-call"
    tool: str = "check_availability"
    arguments: dict[str, str] = field(default_factory=dict)
    tool_call_id: str = field(default_factory=lambda: f"call_{secrets.token_hex(12)}")
    now: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True, slots=True)
class Proof:
    """How a message proves that Vapi sent it. ``settings`` are an integration's ``hmac_*`` keys."""

    secret: str
    scheme: Scheme = "secret"
    settings: dict[str, str] = field(default_factory=dict)
    age: timedelta = timedelta()


def message(kind: str, scene: Scene) -> dict[str, Any]:
    """The message of that type about that call; a type nobody knows is an envelope without more."""
    extra = _EXTRAS[kind](scene) if kind in _EXTRAS else {}
    return {"type": kind, "timestamp": _millis(scene.now), **_envelope(kind, scene), **extra}


def request(kind: str, scene: Scene, proof: Proof, *, url: str, public_url: str | None = None) -> Outgoing:
    """The whole POST. Raises InvalidInput for settings that make no sense together."""
    body = json.dumps({"message": message(kind, scene)}, separators=(",", ":"), ensure_ascii=False).encode()
    headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "Vapi/1.0 (simulated)"}
    match proof.scheme:
        case "secret":
            headers["X-Vapi-Secret"] = proof.secret
        case "bearer":
            headers["Authorization"] = f"Bearer {proof.secret}"
        case "hmac":
            credentials = parse_credentials("vapi", {"webhook_secret": proof.secret, **proof.settings})
            assert isinstance(credentials, VapiCredentials)
            headers |= sign(credentials.hmac, body, url=public_url or url, at=scene.now - proof.age)
    return Outgoing(url, headers, body, frozenset({"X-Vapi-Secret", "Authorization"}))


def sign(plan: HmacPlan, body: bytes, *, url: str, at: datetime) -> dict[str, str]:
    """The headers of an HMAC plan (``HmacAuthenticationPlan`` in Vapi's server SDK), signed at that time."""
    timestamp, message_id = str(int(at.timestamp())), f"msg_{secrets.token_hex(12)}"
    values = {
        "{body}": body,
        "{timestamp}": timestamp.encode(),
        "{method}": b"POST",
        "{url}": url.encode(),
        "{svix-id}": message_id.encode(),
    }
    pieces = re.split(r"(\{[a-z-]+\})", plan.payload_format)
    digest = hmac.new(
        plan.key, b"".join(values.get(piece, piece.encode()) for piece in pieces), getattr(hashlib, plan.algorithm)
    ).digest()
    written = digest.hex() if plan.encoding == "hex" else base64.b64encode(digest).decode()
    headers = {plan.header: plan.prefix + written}
    if "{timestamp}" in plan.payload_format:
        headers[plan.timestamp_header] = timestamp
    if "{svix-id}" in plan.payload_format:
        headers[plan.message_id_header] = message_id
    return headers


def _envelope(kind: str, scene: Scene) -> dict[str, Any]:
    """What every message carries. ``call`` is a snapshot of the call's creation, its status included."""
    org_id = str(uuid5(NAMESPACE_URL, scene.assistant_id))
    created = _iso(scene.now - timedelta(seconds=95))
    call: dict[str, Any] = {
        "id": scene.call_id,
        "orgId": org_id,
        "createdAt": created,
        "updatedAt": created,
        "type": "inboundPhoneCall" if scene.caller else "webCall",
        "status": "ringing" if scene.caller else "queued",
    }
    if kind != "assistant-request":
        call["assistantId"] = scene.assistant_id
    if scene.caller is None:
        return {"call": call}
    number_id = str(uuid5(NAMESPACE_URL, scene.number))
    call |= {
        "phoneCallProvider": "twilio",
        "phoneCallProviderId": "CA" + hashlib.sha256(scene.call_id.encode()).hexdigest()[:32],
        "phoneCallTransport": "pstn",
        "phoneNumberId": number_id,
        "customer": {"number": scene.caller},
    }
    number = {
        "id": number_id,
        "orgId": org_id,
        "number": scene.number,
        "provider": "twilio",
        "twilioAccountSid": "AC" + "0" * 32,
        "twilioAuthToken": "simulated, to be scrubbed",  # Vapi does send the number's own
    }
    return {"call": call, "phoneNumber": number, "customer": {"number": scene.caller}}


def _tool_calls(scene: Scene) -> dict[str, Any]:
    call = {
        "id": scene.tool_call_id,
        "type": "function",
        "function": {"name": scene.tool, "arguments": scene.arguments},
    }
    wrapped = {"type": "function", "async": False, "function": {"name": scene.tool}, "toolCall": call}
    return {"toolCallList": [call], "toolCalls": [call], "toolWithToolCallList": [wrapped]}


def _status_update(scene: Scene) -> dict[str, Any]:
    ended = {"endedReason": scene.ended_reason} if scene.status == "ended" else {}
    return {"status": scene.status, **ended, "artifact": _artifact(scene)}


def _report(scene: Scene) -> dict[str, Any]:
    """A report has its facts at the top level and under artifact and analysis, as the wire has since 2025."""
    transcript = f"AI: {SAID[0]}\nUser: {SAID[1]}\n"
    summary = "The customer asked for an appointment."
    recording = f"https://storage.vapi.ai/{scene.call_id}-simulated-mono.wav"
    parts = {"stt": 0.0107, "llm": 0.0061, "tts": 0.0274, "vapi": 0.0750}
    return {
        "endedReason": scene.ended_reason,
        "startedAt": _iso(scene.now - timedelta(seconds=92)),
        "endedAt": _iso(scene.now - timedelta(seconds=2)),
        "durationSeconds": 90,
        "durationMs": 90_000,
        "durationMinutes": 1.5,
        "cost": round(sum(parts.values()), 4),
        "costBreakdown": {**parts, "total": round(sum(parts.values()), 4)},
        "transcript": transcript,
        "summary": summary,
        "recordingUrl": recording,
        "analysis": {"summary": summary, "successEvaluation": "true"},
        "artifact": {**_artifact(scene), "transcript": transcript, "recordingUrl": recording},
    }


def _artifact(scene: Scene) -> dict[str, Any]:
    began = _millis(scene.now) - 90_000
    return {
        "messages": [
            {"role": "bot", "message": SAID[0], "time": began, "secondsFromStart": 1.2},
            {"role": "user", "message": SAID[1], "time": began + 4_000, "secondsFromStart": 5.2},
        ],
        "messagesOpenAIFormatted": _openai(),
    }


def _openai() -> list[dict[str, str]]:
    return [{"role": "assistant", "content": SAID[0]}, {"role": "user", "content": SAID[1]}]


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _millis(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


_EXTRAS: dict[str, Callable[[Scene], dict[str, Any]]] = {
    "assistant-request": lambda _: {},
    "tool-calls": _tool_calls,
    "function-call": lambda scene: {"functionCall": {"name": scene.tool, "parameters": scene.arguments}},
    "transfer-destination-request": lambda scene: {"artifact": _artifact(scene)},
    "handoff-destination-request": lambda scene: {"parameters": {}, "artifact": _artifact(scene)},
    "knowledge-base-request": lambda _: {"messages": [], "messagesOpenAIFormatted": _openai()},
    "voice-request": lambda _: {"text": SAID[0], "sampleRate": 24000},
    "call.endpointing.request": lambda _: {"messagesOpenAIFormatted": _openai()},
    "campaign.predial": lambda _: {},
    "status-update": _status_update,
    "end-of-call-report": _report,
    "conversation-update": lambda scene: {"conversation": _openai(), "messages": _artifact(scene)["messages"]},
    "transcript": lambda _: {"role": "user", "transcriptType": "partial", "transcript": SAID[1]},
    'transcript[transcriptType="final"]': lambda _: {
        "role": "user",
        "transcriptType": "final",
        "transcript": SAID[1],
    },
    "speech-update": lambda _: {"status": "started", "role": "assistant", "turn": 1},
    "hang": lambda _: {},
    "model-output": lambda _: {"output": "Good", "turnId": "1"},
    "phone-call-control": lambda _: {"request": "hang-up-call"},
    "transfer-update": lambda scene: {"destination": {"type": "number", "number": scene.number}},
    "user-interrupted": lambda _: {"turnId": "1"},
    "language-change-detected": lambda _: {"language": "de"},
    "voice-input": lambda _: {"input": SAID[0]},
    "assistant.started": lambda scene: {"newAssistant": {"id": scene.assistant_id}},
    "assistant.speechStarted": lambda _: {"text": SAID[0], "turn": 1, "source": "model"},
    "chat.created": lambda _: {"chat": {"id": str(uuid4())}},
    "chat.deleted": lambda _: {"chat": {"id": str(uuid4())}},
    "session.created": lambda _: {"session": {"id": str(uuid4())}},
    "session.updated": lambda _: {"session": {"id": str(uuid4())}},
    "session.deleted": lambda _: {"session": {"id": str(uuid4())}},
    "call.deleted": lambda _: {},
    "call.delete.failed": lambda _: {},
    "call.artifact.upload": lambda scene: {"artifact": _artifact(scene)},
}
KNOWN = tuple(_EXTRAS)
