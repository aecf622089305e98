"""A call as Vapi's REST interface tells it, told once more as the report that never came.

Owns where the facts of a call stand in a report (Vapi's API reference, "Calls"; docs.vapi.ai, "Server events"). The
event has the key that the real report has, so that the two are one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson

from app.integrations.events import InboundEvent, WebhookRequest
from app.integrations.vapi.client import VapiCall
from app.integrations.vapi.parsing import parse

ENDED = "ended"
_COPIED = (
    "endedReason",
    "startedAt",
    "endedAt",
    "cost",
    "costBreakdown",
    "costs",
    "analysis",
    "artifact",
    "transcript",
    "summary",
    "recordingUrl",
    "stereoRecordingUrl",
    "customer",
    "phoneNumber",
)


def report_event(call: VapiCall) -> InboundEvent:
    """The end-of-call-report of a call that has ended."""
    document = call.document
    message: dict[str, Any] = {name: document[name] for name in _COPIED if document.get(name) is not None}
    message |= {"type": "end-of-call-report", "call": document}
    body = orjson.dumps({"message": message})
    event = parse(WebhookRequest(method="POST", url="", headers={}, body=body))
    return replace(event, occurred_at=call.ended_at)
