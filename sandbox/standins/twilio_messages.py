"""A message at Twilio: what is kept of it, and how the Messages resource shows it.

Owns the fields (twilio.com/docs/messaging/api/message-resource). Decides nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import datetime
from email.utils import format_datetime
from typing import Any

from sandbox.standins.state import now

API_VERSION = "2010-04-01"


def new_message(account_sid: str, account: dict[str, Any], form: dict[str, str], body: str) -> dict[str, Any]:
    """A message that has just been taken, as it is kept."""
    service = form.get("MessagingServiceSid")
    return {
        "sid": ("MM" if form.get("MediaUrl") else "SM") + secrets.token_hex(16),
        "account_sid": account_sid,
        "to": form["To"],
        # A Messaging Service chooses its sender later: until then Twilio shows none.
        "from": None if service else form["From"],
        "pool": account["messaging_services"][service] if service else [],
        "messaging_service_sid": service,
        "body": ("Sent from your Twilio trial account - " if account["trial"] else "") + body,
        "template": "ContentSid" in form,
        "num_media": "1" if form.get("MediaUrl") else "0",
        "status": "accepted" if service else "queued",
        "error_code": None,
        "status_callback": form.get("StatusCallback"),
        "created_at": now().isoformat(),
        "sent_at": None,
        "updated_at": now().isoformat(),
    }


def inbound_message(
    account_sid: str, sender: str, recipient: str, body: str, *, sid: str | None = None, sent_at: str | None = None
) -> dict[str, Any]:
    """A text that somebody sent to a number of the account, as it is kept."""
    moment = sent_at or now().isoformat()
    return {
        "sid": sid or "SM" + secrets.token_hex(16),
        "account_sid": account_sid,
        "direction": "inbound",
        "to": recipient,
        "from": sender,
        "pool": [],
        "messaging_service_sid": None,
        "body": body,
        "template": False,
        "num_media": "0",
        "status": "received",
        "error_code": None,
        "status_callback": None,
        "created_at": moment,
        "sent_at": moment,
        "updated_at": moment,
    }


def resource(message: dict[str, Any]) -> dict[str, Any]:
    """A message as Twilio shows it."""
    uri = f"/{API_VERSION}/Accounts/{message['account_sid']}/Messages/{message['sid']}"
    segments = -(-len(message["body"]) // 153) if len(message["body"]) > 160 else 1
    shown = ("sid", "account_sid", "to", "from", "messaging_service_sid", "body", "num_media", "status", "error_code")
    return {name: message[name] for name in shown} | {
        "api_version": API_VERSION,
        "direction": message.get("direction", "outbound-api"),
        "error_message": None,
        "num_segments": "0" if message["from"] is None else str(segments),
        "price": None,
        "price_unit": "USD",
        "date_created": _rfc2822(message["created_at"]),
        "date_sent": _rfc2822(message["sent_at"]),
        "date_updated": _rfc2822(message["updated_at"]),
        "uri": f"{uri}.json",
        "subresource_uris": {"media": f"{uri}/Media.json"},
    }


def _rfc2822(moment: str | None) -> str | None:
    return None if moment is None else format_datetime(datetime.fromisoformat(moment))


def matches(message: dict[str, Any], asked: Mapping[str, str]) -> bool:
    """Whether a message fits the filters; one that is not sent yet has no DateSent and fits none by date."""
    for name, field in (("To", "to"), ("From", "from")):
        if asked.get(name) and asked[name] != message[field]:
            return False
    for suffix in ("", "<", ">"):
        wanted = asked.get(f"DateSent{suffix}")
        if wanted and not _date_fits(message["sent_at"], suffix, wanted):
            return False
    return True


def _date_fits(sent_at: str | None, suffix: str, wanted: str) -> bool:
    if sent_at is None:
        return False
    limit = wanted.rstrip("Z")[:19]
    sent = sent_at[: len(limit)]
    return sent == limit if not suffix else sent <= limit if suffix == "<" else sent >= limit
