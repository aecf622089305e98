"""What Twilio would send: texts by SMS and WhatsApp, STOP and START, and reports on texts that went out.

Owns the parameters (Twilio docs, "Messaging webhooks" and "Outbound message status callbacks");
the signature is made by Twilio's own library. Sends nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlencode
from uuid import uuid4

from app.errors import InvalidInput
from app.integrations.twilio.signing import sign
from app.services.simulate import Outgoing

CUSTOMER = "+12025550143"  # 555-01xx is kept for fiction
NUMBER = "+12025550188"


@dataclass(frozen=True, slots=True)
class Text:
    """A text between ``sender`` and ``recipient`` (E.164, or whatever follows ``whatsapp:``).

    None is whoever it would be: the customer writes in, and a report is about a text to the customer.
    """

    sender: str | None = None
    recipient: str | None = None
    body: str = "Hello, are you open on Friday?"
    account_sid: str = "AC" + "0" * 32
    message_sid: str = field(default_factory=lambda: "SM" + secrets.token_hex(16))
    status: str = "delivered"
    error_code: str | None = None


def request(event: str, text: Text, *, auth_token: str, url: str, public_url: str | None = None) -> Outgoing:
    """The whole POST, signed for ``public_url`` (or ``url``). Raises InvalidInput for an unknown event."""
    if event not in _EVENTS:
        raise InvalidInput(f"unknown event; known are {', '.join(_EVENTS)}")
    params = _EVENTS[event](text)
    headers = {
        "Content-Type": "application/x-www-form-urlencoded",
        "Accept": "*/*",
        "User-Agent": "TwilioProxy/1.1",
        "I-Twilio-Idempotency-Token": str(uuid4()),
        "X-Twilio-Signature": sign((public_url or url).partition("#")[0], params, auth_token),
    }
    return Outgoing(url, headers, urlencode(params).encode())


def _inbound(text: Text) -> dict[str, str]:
    """An SMS. Blank parameters are sent, and signed, as Twilio does."""
    return {
        "ToCountry": "US",
        "ToState": "",
        "SmsMessageSid": text.message_sid,
        "NumMedia": "0",
        "ToCity": "",
        "FromZip": "",
        "SmsSid": text.message_sid,
        "FromState": "DC",
        "SmsStatus": "received",
        "FromCity": "",
        "Body": text.body,
        "FromCountry": "US",
        "To": text.recipient or NUMBER,
        "ToZip": "",
        "NumSegments": "1",
        "MessageSid": text.message_sid,
        "AccountSid": text.account_sid,
        "From": text.sender or CUSTOMER,
        "ApiVersion": "2010-04-01",
    }


def _whatsapp(text: Text) -> dict[str, str]:
    sender = (text.sender or CUSTOMER).removeprefix("whatsapp:")
    recipient = (text.recipient or NUMBER).removeprefix("whatsapp:")
    number = {"WaId": sender[1:]} if sender.startswith("+") else {"ExternalUserId": f"whatsapp:{sender}"}
    return {
        "SmsMessageSid": text.message_sid,
        "NumMedia": "0",
        "ProfileName": "Alex Example",
        "MessageType": "text",
        "SmsSid": text.message_sid,
        **number,
        "SmsStatus": "received",
        "Body": text.body,
        "To": f"whatsapp:{recipient}",
        "NumSegments": "1",
        "ReferralNumMedia": "0",
        "MessageSid": text.message_sid,
        "AccountSid": text.account_sid,
        "ChannelMetadata": '{"type":"whatsapp","data":{}}',
        "From": f"whatsapp:{sender}",
        "ApiVersion": "2010-04-01",
    }


def _status(text: Text) -> dict[str, str]:
    failed = {"ErrorCode": text.error_code} if text.error_code else {}
    return {
        "SmsSid": text.message_sid,
        "SmsStatus": text.status,
        "MessageStatus": text.status,
        "To": text.recipient or CUSTOMER,
        "MessageSid": text.message_sid,
        "AccountSid": text.account_sid,
        "From": text.sender or NUMBER,
        "ApiVersion": "2010-04-01",
        **failed,
    }


_EVENTS: dict[str, Callable[[Text], dict[str, str]]] = {
    "inbound": _inbound,
    "whatsapp": _whatsapp,
    "stop": lambda text: {**_inbound(text), "Body": "STOP"},
    "start": lambda text: {**_inbound(text), "Body": "START"},
    "status": _status,
}
EVENTS = tuple(_EVENTS)
