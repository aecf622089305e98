"""The questions in a tool-calls message, in one shape whichever of Vapi's forms they came in.

Owns the forms: ``toolCallList``, ``toolCalls``, ``toolWithToolCallList``, the flattened items of
Vapi's docs ("Server events", "Custom tools") and the legacy ``functionCall``. Answers nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from app.integrations.reading import read_json, storable
from app.integrations.vapi.facts import section, text


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One question. With ``error`` set it cannot be worked on, and still needs a sentence under its id."""

    id: str
    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    error: str | None = None


def tool_calls_of(message: dict[str, Any]) -> list[ToolCall]:
    """All questions, in order, each id once; where one id comes in several forms a readable one is taken."""
    found: dict[str, ToolCall] = {}
    for item in _items(message):
        call = _tool_call(item, message)
        known = found.get(call.id)
        if known is None or (known.error is not None and call.error is None):
            found[call.id] = call
    return list(found.values())


def _items(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for name in ("toolCallList", "toolCalls"):
        yield from _objects(message.get(name))
    for wrapped in _objects(message.get("toolWithToolCallList")):
        inner = section(wrapped, "toolCall")
        if inner:
            # The flattened form leaves the name to the tool around the call.
            yield inner if _name(inner) else {**inner, "name": _name(wrapped)}
    yield from _objects([message.get("functionCall")])


def _objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _name(item: dict[str, Any]) -> str:
    return text(section(item, "function").get("name")) or text(item.get("name")) or ""


def _tool_call(item: dict[str, Any], message: dict[str, Any]) -> ToolCall:
    name = _name(item)
    raw = _raw_arguments(item)
    call_id = text(item.get("id")) or text(item.get("toolCallId")) or _made_up_id(name, raw, message)
    if not name:
        return ToolCall(call_id, "", error="the call names no tool")
    arguments = _arguments(raw)
    if arguments is None:
        return ToolCall(call_id, name, error="the arguments are not a JSON object")
    return ToolCall(call_id, name, arguments)


def _raw_arguments(item: dict[str, Any]) -> Any:
    function = section(item, "function")
    for holder, name in ((function, "arguments"), (item, "arguments"), (item, "parameters"), (function, "parameters")):
        if holder.get(name) is not None:
            return holder[name]
    return None


def _arguments(raw: Any) -> dict[str, Any] | None:
    """Arguments as an object, or as its JSON in a string; None when they are neither."""
    if raw is None or raw == "":
        return {}
    if isinstance(raw, str):
        try:
            raw = storable(read_json(raw))
        except ValueError:
            return None
    return raw if isinstance(raw, dict) else None


def _made_up_id(name: str, raw: Any, message: dict[str, Any]) -> str:
    """The legacy form may have no id: one that is the same when the same message comes again."""
    facts = [section(message, "call").get("id"), message.get("timestamp"), name, raw]
    digest = hashlib.sha256(orjson.dumps(facts, option=orjson.OPT_SORT_KEYS)).hexdigest()
    return f"function-call-{digest[:16]}"
