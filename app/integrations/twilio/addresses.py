"""Addresses as Twilio writes them: E.164 for texts, ``whatsapp:`` and a number or a user id for WhatsApp.

Owns the prefix. Inside the house an address has none: the channel is told beside it.
"""

from __future__ import annotations

SMS = "sms"
WHATSAPP = "whatsapp"


def without_channel(address: str) -> str:
    """The address alone; WhatsApp users without a number have an id such as ``US.1234``."""
    channel, colon, rest = address.partition(":")
    return rest if colon and channel.isalpha() else address


def with_channel(channel: str, address: str) -> str:
    """The address as Twilio's API wants it."""
    return f"{WHATSAPP}:{without_channel(address)}" if channel == WHATSAPP else address


def channel_of(address: str) -> str:
    """``sms``, ``whatsapp``, or whatever other channel Twilio names (``rcs``, ``messenger``)."""
    channel, colon, _ = address.partition(":")
    return channel.lower() if colon and channel.isalpha() else SMS
