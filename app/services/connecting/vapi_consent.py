"""The sentence of consent where Vapi asks nobody who takes a call: in the first message of a fixed assistant.

Owns what that message should be. The sentence that was put there from here is noted in the assistant's metadata,
so that another one takes its place and that it can be taken off again; what an assistant says by itself stays.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from app.integrations.vapi import SPEAKS_FIRST
from app.services import consent

NOTE = "voicedeskConsent"  # in the assistant's metadata
_SAID_LATER = {
    "assistant-waits-for-user": "(only after the caller has spoken)",
    "assistant-speaks-first-with-model-generated-message": "(in the model's own words)",
}
Thing = dict[str, Any]


class Opening(NamedTuple):
    """How calls begin and should begin, to be read; ``fields`` make it so, None where only a person can."""

    has: str
    should: str
    fields: Thing | None


def compare(assistant: Thing, sentence: str | None, *, is_fixed: bool) -> Opening | None:
    """How the assistant's calls should begin otherwise; None when they begin as they should.

    Of an assistant that is not fixed the answer to Vapi's question says it, which takes the place of its first
    message; then only a sentence that was put there and is not the organization's any more is taken off.
    """
    message = str(assistant.get("firstMessage") or "")
    noted = _noted(assistant)
    own = consent.taken_off(message, noted)
    if sentence and is_fixed:
        return _missing(assistant, message, own, sentence)
    if noted and own != message and noted != sentence:
        return Opening(message, own, {"firstMessage": own, **_note(assistant, "")})
    return None


def _missing(assistant: Thing, message: str, own: str, sentence: str) -> Opening | None:
    mode = assistant.get("firstMessageMode") or SPEAKS_FIRST
    said = consent.begins(message, sentence)
    if said and mode == SPEAKS_FIRST:
        return None
    has = f"{message} {_SAID_LATER.get(mode, '')}".strip()
    if said:
        return Opening(has, message, {"firstMessageMode": SPEAKS_FIRST})
    if _is_recording(own):
        return Opening(has, consent.ended(sentence), None)
    should = consent.put_before(own, sentence)
    fields = {"firstMessage": should, "firstMessageMode": SPEAKS_FIRST, **_note(assistant, sentence)}
    return Opening(has, should, fields)


def _noted(assistant: Thing) -> str:
    metadata = assistant.get("metadata")
    return str(metadata.get(NOTE) or "") if isinstance(metadata, dict) else ""


def _note(assistant: Thing, sentence: str) -> Thing:
    """Emptied, not left out, when it is taken away: that is right whether Vapi replaces metadata or merges it."""
    return {"metadata": {**(assistant.get("metadata") or {}), NOTE: sentence}}


def _is_recording(message: str) -> bool:
    """Vapi plays an audio file when the first message is its URL."""
    return message.startswith(("https://", "http://")) and len(message.split()) == 1
