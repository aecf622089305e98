"""Twilio's webhooks as events: texts that came in, and news of texts that went out.

Owns the meaning of the form's fields. Parameters vary by channel and new ones come without notice, so
all are kept; what the house needs is beside them, normalised, under ``_``.
Source: Twilio's documentation, "Incoming message webhook request" and "Message status callback".
"""

from __future__ import annotations

import hashlib
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

from app.errors import MalformedEvent, SignatureInvalid
from app.integrations.events import ConsentChange, InboundEvent, WebhookRequest
from app.integrations.twilio.signing import read_form

PROVIDER = "twilio"
WHATSAPP = "whatsapp:"
MOST_MEDIA = 10
# Twilio's own opt-out words, less CANCEL: customers cancel appointments with it. It is an opt-out only
# where Twilio itself says so (OptOutType), which it does where it handles opt-outs for the sender.
STOP_WORDS = {"stop", "stopall", "unsubscribe", "end", "quit", "revoke", "optout"}
START_WORDS = {"start", "unstop", "yes"}


def conversation_lane(address: str) -> str:
    """The lane of one customer's conversation; says nothing of the number in a log."""
    return "conversation:" + hashlib.sha256(address.encode()).hexdigest()[:16]


def parse_inbound(request: WebhookRequest, *, account_sid: str) -> InboundEvent:
    """A text that came in. Raises MalformedEvent, and SignatureInvalid for another account's."""
    form = _form(request, account_sid)
    sid, sender, to = (_needed(form, name) for name in ("MessageSid", "From", "To"))
    channel = "whatsapp" if sender.startswith(WHATSAPP) else "sms"
    address = sender.removeprefix(WHATSAPP)
    body = form.get("Body", "")
    payload = {
        **form,
        "_": {
            "channel": channel,
            "address_from": address,
            "address_to": str(to).removeprefix(WHATSAPP),
            "body": body,
            "message_sid": sid,
            "wa_id": form.get("WaId"),
            "user_id": str(form.get("ExternalUserId") or "").removeprefix(WHATSAPP) or None,
            "profile_name": form.get("ProfileName"),
            "media": _media(form),
        },
    }
    return InboundEvent(
        provider=PROVIDER,
        type="message.inbound",
        event_key=f"in:{sid}"[:200],
        lane_key=conversation_lane(address),
        payload=payload,
        consent=_consent(address, str(body), form.get("OptOutType")),
    )


def parse_status(request: WebhookRequest, *, account_sid: str) -> InboundEvent:
    """News of a text that went out; our row's id is in the query, which Twilio signs with the rest."""
    form = _form(request, account_sid)
    sid, status = _needed(form, "MessageSid"), _needed(form, "MessageStatus")
    message_id = _message_id(request)
    payload = {
        **form,
        "_": {
            "message_sid": sid,
            "status": status.lower(),
            "error_code": form.get("ErrorCode") or None,
            "message_id": message_id,
        },
    }
    return InboundEvent(
        provider=PROVIDER,
        type="message.status",
        event_key=f"status:{sid}:{status}"[:200],
        lane_key=f"message:{message_id or sid}"[:200],
        payload=payload,
    )


def _form(request: WebhookRequest, account_sid: str) -> dict[str, Any]:
    """The form as plain JSON: single values as text, repeated ones as lists, without NUL."""
    form: dict[str, Any] = {}
    for name, values in read_form(request.body).items():
        clean = [value.replace("\x00", "\ufffd") for value in values]
        form[name.replace("\x00", "\ufffd")] = clean[0] if len(clean) == 1 else clean
    if form.get("AccountSid", account_sid) != account_sid:
        raise SignatureInvalid("the webhook is of another account")
    return form


def _needed(form: dict[str, Any], name: str) -> str:
    value = form.get(name)
    if not isinstance(value, str) or not value:
        raise MalformedEvent(f"the parameter {name} is missing")
    return value


def _message_id(request: WebhookRequest) -> str | None:
    given = parse_qs(urlsplit(request.url).query).get("m")
    if not given:
        return None
    try:
        return str(UUID(given[0]))
    except ValueError:
        raise MalformedEvent("the query's m is not the id of a text") from None


def _media(form: dict[str, Any]) -> list[dict[str, Any]]:
    count = str(form.get("NumMedia") or "0")
    found = min(int(count), MOST_MEDIA) if count.isdecimal() else 0
    return [
        {"url": form.get(f"MediaUrl{number}"), "content_type": form.get(f"MediaContentType{number}")}
        for number in range(found)
    ]


def _consent(address: str, body: str, said_by_twilio: Any) -> ConsentChange | None:
    word = body.strip().casefold()
    decided = str(said_by_twilio or "").casefold()
    if decided == "stop" or word in STOP_WORDS:
        return ConsentChange(address, opted_out=True)
    if decided == "start" or word in START_WORDS:
        return ConsentChange(address, opted_out=False)
    return None
