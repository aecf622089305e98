"""By what a webhook of Twilio's names whose it is, on an account that serves many.

Owns which parameters count, in texts that come in and in news of those that went out.
"""

from __future__ import annotations

from typing import Any

from app.integrations.twilio.addresses import WHATSAPP, without_channel


def routing_keys(payload: dict[str, Any]) -> list[tuple[str, str]]:
    """The webhook's keys: our own number (or WhatsApp sender), the account, and the Messaging Service."""
    said = payload.get("_") or {}
    ours = said.get("address_to") if said.get("status") == "received" else said.get("address_from")
    sender = "whatsapp_sender" if said.get("channel") == WHATSAPP else "phone_number"
    found = (
        (sender, without_channel(ours) if isinstance(ours, str) else None),
        ("twilio_account", payload.get("AccountSid")),
        ("twilio_messaging_service", payload.get("MessagingServiceSid")),
    )
    return [(kind, value) for kind, value in found if isinstance(value, str) and value]
