"""What Twilio tells: texts that came in, and news of texts that went out, as one InboundEvent each.

Owns Twilio's parameters (Twilio docs, "Messaging webhooks" and "Outbound message status callbacks")
and the words STOP and START. Verifies nothing and stores nothing.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

from app.errors import MalformedEvent, SignatureInvalid
from app.integrations.events import ConsentChange, InboundEvent, WebhookRequest
from app.integrations.twilio.addresses import SMS, WHATSAPP, channel_of, without_channel
from app.integrations.twilio.signing import FORM, content_type, read_form

PROVIDER = "twilio"
TWIML_EMPTY = '<?xml version="1.0" encoding="UTF-8"?><Response/>'

# Twilio's own lists (Twilio docs, "Advanced Opt-Out"), with one exception: CANCEL is not here, because
# customers of ours cancel an appointment by texting that word. It is an opt-out only when Twilio says so
# (OptOutType=STOP), as it does where its own opt-out handling has acted on it.
STOP_WORDS = frozenset({"STOP", "STOPALL", "UNSUBSCRIBE", "END", "QUIT", "REVOKE", "OPTOUT"})
START_WORDS = frozenset({"START", "UNSTOP", "YES"})

MOST_MEDIA = 10  # as many as one message can carry
LONGEST_ADDRESS = 180
_SID = re.compile(r"[A-Z]{2}[0-9a-fA-F]{32}")
_STATUS = re.compile(r"[a-z][a-z_-]{1,39}")


def conversation_lane(address: str) -> str:
    """The lane of one customer's texts, both ways and by both channels; tells nobody the number."""
    return f"conversation:{hashlib.sha256(without_channel(address).encode()).hexdigest()[:16]}"


def parse_inbound(request: WebhookRequest, *, account_sid: str | None) -> InboundEvent:
    """Understand a text that came in.

    Raises MalformedEvent when it has no MessageSid, From or To, SignatureInvalid when it is of another
    account than ``account_sid`` (None: of any). Texts by channels other than SMS and WhatsApp become ``message.other``.
    """
    form = _read(request, account_sid)
    sid = _message_sid(form)
    sender, recipient = form.get("From") or form.get("ExternalUserId"), form.get("To")
    if not sender or not recipient or max(len(sender), len(recipient)) > LONGEST_ADDRESS:
        raise MalformedEvent("a text without a usable From and To")
    channel = channel_of(sender)
    address = without_channel(sender)
    payload = _payload(request) | {
        "_": {
            "channel": channel,
            "address_from": address,
            "address_to": without_channel(recipient),
            "body": form.get("Body", ""),
            "message_sid": sid,
            "wa_id": form.get("WaId"),
            "user_id": without_channel(form.get("ExternalUserId", "")) or None,
            "profile_name": form.get("ProfileName"),
            "media": _media(form),
            "status": "received",
            "error_code": None,
            "message_id": None,
        }
    }
    return InboundEvent(
        provider=PROVIDER,
        type="message.inbound" if channel in (SMS, WHATSAPP) else "message.other",
        event_key=f"in:{sid}",
        lane_key=conversation_lane(address),
        payload=payload,
        consent=_consent(form, address),
    )


def parse_status(request: WebhookRequest, *, account_sid: str | None) -> InboundEvent:
    """Understand news of a text that went out; ``m`` in the query is our own id of it, signed with the URL.

    Raises MalformedEvent without MessageSid or MessageStatus, SignatureInvalid for another account.
    """
    form = _read(request, account_sid)
    sid = _message_sid(form)
    status = (form.get("MessageStatus") or form.get("SmsStatus") or "").lower()
    if not _STATUS.fullmatch(status):
        raise MalformedEvent("a status callback without a usable MessageStatus")
    sender, recipient = form.get("From", ""), form.get("To", "")
    whatsapp = form.get("ChannelPrefix") == WHATSAPP or WHATSAPP in (channel_of(sender), channel_of(recipient))
    message_id = _our_id(request.url)
    payload = _payload(request) | {
        "_": {
            "channel": WHATSAPP if whatsapp else SMS,
            "address_from": without_channel(sender),
            "address_to": without_channel(recipient),
            "body": "",
            "message_sid": sid,
            "wa_id": None,
            "user_id": None,
            "profile_name": None,
            "media": [],
            "status": status,
            "error_code": form.get("ErrorCode") or None,
            "message_id": message_id,
        }
    }
    return InboundEvent(
        provider=PROVIDER,
        type="message.status",
        event_key=f"status:{sid}:{status}",
        lane_key=f"message:{message_id or sid}",
        payload=payload,
    )


def consent_of(payload: Mapping[str, Any]) -> ConsentChange | None:
    """The STOP or START that a stored text said."""
    form = {name: value for name, value in payload.items() if isinstance(value, str)}
    return _consent(form, payload["_"]["address_from"])


def _read(request: WebhookRequest, account_sid: str | None) -> dict[str, str]:
    """One value a parameter, of a webhook that is of this account."""
    if content_type(request) != FORM:
        raise MalformedEvent("Twilio tells of texts in forms only")
    form = {name: _storable(values[0]) for name, values in read_form(request.body).items()}
    # A valid signature over a foreign AccountSid: somebody who knows the token speaks for another account.
    if account_sid is not None and form.get("AccountSid", account_sid) != account_sid:
        raise SignatureInvalid("the webhook is of another account")
    return form


def _payload(request: WebhookRequest) -> dict[str, Any]:
    """Everything that was sent, for the record: repeated parameters as lists."""
    return {
        _storable(name): _storable(values[0]) if len(values) == 1 else [_storable(value) for value in values]
        for name, values in read_form(request.body).items()
    }


def _storable(text: str) -> str:
    """PostgreSQL's jsonb takes no NUL; it is shown instead."""
    return text.replace("\x00", "\\u0000")


def _message_sid(form: Mapping[str, str]) -> str:
    sid = form.get("MessageSid") or form.get("SmsMessageSid") or form.get("SmsSid") or ""
    if not _SID.fullmatch(sid):
        raise MalformedEvent("a webhook without a usable MessageSid")
    return sid


def _our_id(url: str) -> str | None:
    try:
        return str(UUID(parse_qs(urlsplit(url).query).get("m", [""])[0]))
    except ValueError:
        return None


def _media(form: Mapping[str, str]) -> list[dict[str, str]]:
    count = form.get("NumMedia", "0")
    most = min(int(count), MOST_MEDIA) if count.isdecimal() and len(count) < 4 else 0
    return [
        {"url": form[f"MediaUrl{number}"], "content_type": form.get(f"MediaContentType{number}", "")}
        for number in range(most)
        if form.get(f"MediaUrl{number}")
    ]


def _consent(form: Mapping[str, str], address: str) -> ConsentChange | None:
    """STOP and START: what Twilio's opt-out handling found, or else a body that is just the word."""
    found = form.get("OptOutType", "").strip().upper()
    if not found:
        word = form.get("Body", "").strip().upper()
        found = "STOP" if word in STOP_WORDS else "START" if word in START_WORDS else ""
    if found not in ("STOP", "START"):
        return None
    return ConsentChange(address=address, opted_out=found == "STOP")
