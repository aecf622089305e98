"""By what a message of Vapi's names whose it is, on an account that serves many.

Owns which facts count. Whose each is, is not known here.
"""

from __future__ import annotations

from typing import Any

from app.integrations.vapi.facts import call_of


def routing_keys(message: dict[str, Any]) -> list[tuple[str, str]]:
    """The message's keys: the assistant, the phone number by Vapi's id of it, and the number that was dialled."""
    call = call_of(message)
    found = (
        ("vapi_assistant", call.assistant_id),
        ("vapi_phone_number", call.phone_number_id),
        ("phone_number", call.dialled_number),
    )
    return [(kind, value) for kind, value in found if value]
