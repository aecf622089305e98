"""A text as Twilio lists it, told once more as the webhook that never came.

Owns which parameter of a webhook each field of the Messages resource is (Twilio docs, "Message resource" and
"Messaging webhooks"). The events have the keys that the real webhooks have, so that the two are one. A list does not
tell where a text's media are, nor what Twilio's own opt-out handling made of it: the words alone decide then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from app.integrations.events import InboundEvent, WebhookRequest
from app.integrations.twilio.parsing import parse_inbound, parse_status
from app.integrations.twilio.signing import FORM


@dataclass(frozen=True, slots=True)
class ListedText:
    """One text of an account; addresses are as Twilio writes them. ``sent_at`` has whole seconds."""

    sid: str
    account_sid: str
    inbound: bool
    status: str
    sender: str
    recipient: str
    body: str
    service_sid: str | None
    sent_at: datetime | None
    error_code: str | None
    media: int


def as_listed(message: Any) -> ListedText:
    """The library's message in this shape."""
    return ListedText(
        sid=message.sid,
        account_sid=message.account_sid or "",
        inbound=str(message.direction) == "inbound",
        status=str(message.status or ""),
        sender=message.from_ or "",
        recipient=message.to or "",
        body=message.body or "",
        service_sid=message.messaging_service_sid,
        sent_at=message.date_sent,
        error_code=str(message.error_code) if message.error_code else None,
        media=int(message.num_media or 0),
    )


def as_inbound(text: ListedText) -> InboundEvent:
    """The webhook of a text that came in. Raises MalformedEvent."""
    form = {**_form(text), "Body": text.body, "NumMedia": "0"}
    event = parse_inbound(_request(form), account_sid=text.account_sid)
    return replace(event, occurred_at=text.sent_at)


def as_status(text: ListedText) -> InboundEvent:
    """The callback that would have told how a text of ours stands. Raises MalformedEvent."""
    form = {**_form(text), "MessageStatus": text.status}
    if text.error_code:
        form["ErrorCode"] = text.error_code
    return parse_status(_request(form), account_sid=text.account_sid)


def _form(text: ListedText) -> dict[str, str]:
    form = {"MessageSid": text.sid, "AccountSid": text.account_sid, "From": text.sender, "To": text.recipient}
    return form | ({"MessagingServiceSid": text.service_sid} if text.service_sid else {})


def _request(form: Mapping[str, str]) -> WebhookRequest:
    return WebhookRequest(method="POST", url="", headers={"content-type": FORM}, body=urlencode(form).encode())
