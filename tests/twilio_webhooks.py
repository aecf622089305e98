"""Webhooks as Twilio makes them: its account, its forms, its signatures."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import urlencode

from twilio.request_validator import RequestValidator

from app.integrations.events import WebhookRequest
from app.integrations.twilio import TwilioCredentials
from app.integrations.twilio.signing import Form

ACCOUNT = "AC" + "1a" * 16
TOKEN = "a token of the tests"
SID = "SM" + "5f" * 16
URL = "https://desk.example.com/webhooks/twilio/tok_1"
STATUS_URL = URL + "/status"
NOW = datetime(2026, 3, 1, tzinfo=UTC)
CREDENTIALS = TwilioCredentials(account_sid=ACCOUNT, auth_token=TOKEN, from_number="+12025550188")
TEXT = {
    "MessageSid": SID,
    "AccountSid": ACCOUNT,
    "From": "+12025550143",
    "To": "+12025550188",
    "Body": "Is tomorrow at ten free?",
    "NumMedia": "0",
    "ToCity": "",
}

Pairs = Mapping[str, str] | list[tuple[str, str]]


def form_request(params: Pairs, *, url: str = URL, headers: Mapping[str, str] | None = None) -> WebhookRequest:
    """A form, as it arrives."""
    return WebhookRequest(
        method="POST",
        url=url,
        headers={"content-type": "application/x-www-form-urlencoded", **(headers or {})},
        body=urlencode(params).encode(),
    )


def signed(params: Pairs, *, url: str = URL, signed_url: str | None = None, token: str = TOKEN) -> WebhookRequest:
    """A form with the signature that Twilio\'s own library makes for it."""
    form = Form()
    for name, value in params.items() if isinstance(params, Mapping) else params:
        form.setdefault(name, []).append(value)
    signature = RequestValidator(token).compute_signature(signed_url or url, form)
    return form_request(params, url=url, headers={"x-twilio-signature": signature})
