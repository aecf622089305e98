"""What of a message is not what somebody said: the ids, times, numbers and costs that are kept when words go.

Owns the list of what stays. It names what is kept, never what goes, so that a field that Vapi adds tomorrow goes
too. What ``call_of``, ``status_of`` and ``report_of`` read of the facts of a call is among what stays.
"""

from __future__ import annotations

from typing import Any

_NUMBER = {"id": True, "orgId": True, "number": True, "provider": True}
_CUSTOMER = {"number": True}
_TOOL_CALL = {"id": True, "type": True, "name": True, "function": {"name": True}}
_KEPT: dict[str, Any] = {
    **dict.fromkeys(("type", "timestamp", "status", "endedReason", "startedAt", "endedAt"), True),
    **dict.fromkeys(("durationSeconds", "durationMs", "durationMinutes", "cost"), True),
    "costs": {"type": True, "cost": True},
    "costBreakdown": dict.fromkeys(("stt", "llm", "tts", "vapi", "transport", "total"), True),
    "call": {
        **dict.fromkeys(("id", "orgId", "type", "status", "createdAt", "updatedAt", "startedAt", "endedAt"), True),
        **dict.fromkeys(("assistantId", "phoneNumberId", "endedReason"), True),
        **dict.fromkeys(("phoneCallProvider", "phoneCallProviderId", "phoneCallTransport"), True),
        "phoneNumber": _NUMBER,
        "customer": _CUSTOMER,
    },
    "phoneNumber": _NUMBER,
    "customer": _CUSTOMER,
    "assistant": {"id": True, "orgId": True},
    "toolCallList": _TOOL_CALL,
    "toolCalls": _TOOL_CALL,
    "toolWithToolCallList": {"type": True, "toolCall": _TOOL_CALL},
    "functionCall": {"id": True, "name": True},
    "compliance": {"recordingConsent": {"type": True, "grantedAt": True}},
}
# Of what was answered: which assistant, which result of which tool call; not what it was to say to whom.
_ANSWERED: dict[str, Any] = {
    "assistantId": True,
    "assistantOverrides": {"firstMessage": True},
    "results": {"toolCallId": True, "name": True},
}


def without_words(message: dict[str, Any]) -> dict[str, Any]:
    """The message without anything that was said in the call, or that tells of it."""
    return _pick(message, _KEPT)


def answer_without_words(answer: dict[str, Any]) -> dict[str, Any]:
    """What was answered to Vapi, without what callers were told; the sentence of consent stays."""
    return _pick(answer, _ANSWERED)


def _pick(found: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    picked = {}
    for name, value in found.items():
        inner = wanted.get(name)
        if inner is True and not isinstance(value, dict | list):
            picked[name] = value
        elif isinstance(inner, dict) and isinstance(value, dict):
            picked[name] = _pick(value, inner)
        elif isinstance(inner, dict) and isinstance(value, list):
            picked[name] = [_pick(item, inner) for item in value if isinstance(item, dict)]
    return picked
