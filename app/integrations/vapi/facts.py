"""What a message says about its call, in one shape whatever the year it was written in.

Owns where in Vapi's payloads a fact stands: in 2024 and 2025 most of a report was at the top level,
since then under ``artifact`` and ``analysis`` (Vapi's server SDK types them). Reads only; a fact that
is missing or of the wrong kind is None, never an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

MILLISECONDS_FROM = 1e11
_ASSISTANT = ("bot", "assistant")


@dataclass(frozen=True, slots=True)
class CallFacts:
    """A call as any message describes it. ``dialled_number`` is the organization's own number.

    There is no status here: ``message.call`` is a snapshot of the call's creation and its status with it.
    """

    call_id: str | None = None
    provider_call_id: str | None = None
    type: str | None = None
    org_id: str | None = None
    assistant_id: str | None = None
    phone_number_id: str | None = None
    dialled_number: str | None = None
    customer_number: str | None = None
    customer_name: str | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None


class Opening(NamedTuple):
    """What the assistant said first in a call, and when."""

    words: str
    at: datetime | None


@dataclass(frozen=True, slots=True)
class CallReport:
    """An end-of-call report. ``cost`` is in US dollars; transcript and summary are text as Vapi wrote it."""

    ended_reason: str | None = None
    transcript: str | None = None
    summary: str | None = None
    cost: Decimal | None = None
    recording_url: str | None = None
    duration_seconds: Decimal | None = None
    structured_data: dict[str, Any] | None = None
    success_evaluation: str | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    opening: Opening | None = None


class CallStatus(NamedTuple):
    """Where a call stands, why it ended, and when that was said."""

    status: str | None
    ended_reason: str | None
    at: datetime | None


def call_of(message: dict[str, Any]) -> CallFacts:
    """The call a message is about; all None for a message about none."""
    call, assistant = section(message, "call"), section(message, "assistant")
    number = section(message, "phoneNumber") or section(call, "phoneNumber")
    customer = section(message, "customer") or section(call, "customer")
    return CallFacts(
        call_id=text(call.get("id")),
        provider_call_id=text(call.get("phoneCallProviderId")),
        type=text(call.get("type")),
        org_id=text(call.get("orgId")) or text(number.get("orgId")) or text(assistant.get("orgId")),
        assistant_id=text(call.get("assistantId")) or text(assistant.get("id")),
        phone_number_id=text(call.get("phoneNumberId")) or text(number.get("id")),
        dialled_number=text(number.get("number")),
        customer_number=text(customer.get("number")),
        customer_name=text(customer.get("name")),
        created_at=moment(call.get("createdAt")),
        started_at=moment(message.get("startedAt")) or moment(call.get("startedAt")),
        ended_at=moment(message.get("endedAt")) or moment(call.get("endedAt")),
    )


def status_of(message: dict[str, Any]) -> CallStatus:
    """What a status-update says; from the message itself, never from its snapshot of the call."""
    return CallStatus(text(message.get("status")), text(message.get("endedReason")), moment(message.get("timestamp")))


def report_of(message: dict[str, Any]) -> CallReport:
    """What an end-of-call-report says."""
    artifact, analysis = section(message, "artifact"), section(message, "analysis")
    call = call_of(message)
    return CallReport(
        ended_reason=text(message.get("endedReason")) or text(section(message, "call").get("endedReason")),
        transcript=text(message.get("transcript")) or text(artifact.get("transcript")),
        summary=text(analysis.get("summary")) or text(message.get("summary")),
        cost=_cost(message),
        recording_url=_recording(message, artifact),
        duration_seconds=_duration(message, call),
        structured_data=_structured(analysis, artifact),
        success_evaluation=_word(analysis.get("successEvaluation")),
        started_at=call.started_at,
        ended_at=call.ended_at,
        opening=_opening(message, artifact),
    )


def section(message: dict[str, Any], name: str) -> dict[str, Any]:
    """The object under a name; empty when there is none."""
    found = message.get(name)
    return found if isinstance(found, dict) else {}


def text(value: Any) -> str | None:
    """Text that says something, else None."""
    return value if isinstance(value, str) and value.strip() else None


def moment(value: Any) -> datetime | None:
    """A time in UTC from what Vapi writes: epoch milliseconds (or seconds), or ISO 8601; else None."""
    try:
        if isinstance(value, str):
            parsed = datetime.fromisoformat(value)
            return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).astimezone(UTC)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value / 1000 if value > MILLISECONDS_FROM else value, UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return None


def _cost(message: dict[str, Any]) -> Decimal | None:
    """The total, or the sum of its parts. Not ``call.cost``, which is 0 from the call's creation."""
    total = _decimal(message.get("cost"))
    if total is None:
        total = _decimal(section(message, "costBreakdown").get("total"))
    parts = message.get("costs")
    if total is None and isinstance(parts, list):
        known = [_decimal(part.get("cost")) for part in parts if isinstance(part, dict)]
        total = sum((part for part in known if part is not None), Decimal(0)) if known else None
    return total


def _opening(message: dict[str, Any], artifact: dict[str, Any]) -> Opening | None:
    """Of the messages of the call in their order; the system's come before it and are not heard."""
    messages = artifact.get("messages") or message.get("messages")
    for said in messages if isinstance(messages, list) else ():
        if isinstance(said, dict) and said.get("role") in _ASSISTANT:
            words = text(said.get("message"))
            return Opening(words, moment(said.get("time"))) if words else None
    return None


def _recording(message: dict[str, Any], artifact: dict[str, Any]) -> str | None:
    recording = section(artifact, "recording")
    candidates = (
        message.get("recordingUrl"),
        artifact.get("recordingUrl"),
        section(recording, "mono").get("combinedUrl"),
        recording.get("stereoUrl"),
        message.get("stereoRecordingUrl"),
        artifact.get("stereoRecordingUrl"),
    )
    return next((url for url in candidates if isinstance(url, str) and url.startswith(("https://", "http://"))), None)


def _duration(message: dict[str, Any], call: CallFacts) -> Decimal | None:
    for name, seconds in (("durationSeconds", "1"), ("durationMs", "0.001"), ("durationMinutes", "60")):
        found = _decimal(message.get(name))
        if found is not None and found >= 0:
            return (found * Decimal(seconds)).quantize(Decimal("0.001"))
    if call.started_at and call.ended_at and call.ended_at >= call.started_at:
        return Decimal(str(round((call.ended_at - call.started_at).total_seconds(), 3)))
    return None


def _structured(analysis: dict[str, Any], artifact: dict[str, Any]) -> dict[str, Any] | None:
    """Structured data as an object; whatever else an organization's schema makes of it goes under ``value``."""
    found = analysis.get("structuredData")
    if found is None:
        found = artifact.get("structuredOutputs")
    if found is None or found == {}:
        return None
    return found if isinstance(found, dict) else {"value": found}


def _word(value: Any) -> str | None:
    """Vapi writes an evaluation as text; rubrics of numbers or yes and no become text too."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else text(value)


def _decimal(value: Any) -> Decimal | None:
    """A number that fits a column of money or seconds; else None."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = Decimal(str(value))
    except InvalidOperation:
        return None
    return found if found.is_finite() and abs(found) < 1_000_000 else None
