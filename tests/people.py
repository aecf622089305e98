"""Two organizations with names, so that a test reads "North Street Salon cannot see Harbour Dental's calls"."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from flask.testing import FlaskClient
from twilio.request_validator import RequestValidator
from werkzeug.test import TestResponse

from app.models import Integration, Organization
from app.services.credentials import parse_credentials
from app.services.platform import Platform
from sandbox.standins import RemoteWorld
from tests.leaks import plant, plant_words

ALWAYS_OPEN = {day: [["00:00", "23:59"]] for day in ("mon", "tue", "wed", "thu", "fri", "sat", "sun")}


@dataclass(frozen=True)
class Business:
    """An organization as a test needs it: its ids, tokens and secrets."""

    platform: Platform
    id: UUID
    name: str
    number: str
    vapi_token: str
    vapi_secret: str
    twilio_token: str
    account_sid: str
    auth_token: str
    google_token: str
    channel_token: str
    calendar_id: str

    def vapi(self, client: FlaskClient, message: dict[str, Any], *, secret: str | None = None) -> TestResponse:
        """Post a server message as Vapi does."""
        plant_words(message)
        return client.post(
            f"/webhooks/vapi/{self.vapi_token}",
            data=json.dumps({"message": message}),
            content_type="application/json",
            headers={"X-Vapi-Secret": self.vapi_secret if secret is None else secret},
        )

    def tool(self, client: FlaskClient, tool: str, /, *, call_id: str, tool_call_id: str = "", **arguments: Any) -> str:
        """Ask for one tool; return the sentence."""
        tool_call_id = tool_call_id or f"call_{secrets.token_hex(6)}"
        call = {"id": tool_call_id, "type": "function", "function": {"name": tool, "arguments": arguments}}
        answer = self.vapi(client, {"type": "tool-calls", "call": {"id": call_id}, "toolCallList": [call]})
        assert answer.status_code == 200
        (result,) = answer.get_json()["results"]
        assert result["toolCallId"] == tool_call_id
        said: str = result["result"]
        return said

    def twilio(self, client: FlaskClient, params: dict[str, str], *, path: str = "", query: str = "") -> TestResponse:
        """Post a form as Twilio does, signed by Twilio's own library."""
        plant_words(params)
        target = f"/webhooks/twilio/{self.twilio_token}{path}{query}"
        signature = RequestValidator(self.auth_token).compute_signature(
            self.platform.settings.public_base_url + target, params
        )
        return client.post(
            target,
            data=urlencode(params),
            content_type="application/x-www-form-urlencoded",
            headers={"X-Twilio-Signature": signature},
        )

    def text(self, client: FlaskClient, sender: str, body: str, *, sid: str | None = None) -> TestResponse:
        """A text comes in; a sender beginning with whatsapp: comes by WhatsApp."""
        prefix = "whatsapp:" if sender.startswith("whatsapp:") else ""
        return self.twilio(
            client,
            {
                "MessageSid": sid or "SM" + secrets.token_hex(16),
                "AccountSid": self.account_sid,
                "From": sender,
                "To": prefix + self.number,
                "Body": body,
                "NumMedia": "0",
                "ToCity": "",
            },
        )


class People:
    """North Street Salon and Harbour Dental."""

    def __init__(self, platform: Platform, world: RemoteWorld) -> None:
        self.salon = open_business(platform, world, "North Street Salon", "+4930111110001")
        self.dental = open_business(platform, world, "Harbour Dental", "+4940222220002")


def open_business(
    platform: Platform, world: RemoteWorld, name: str, number: str, *, google: bool = True, slot_minutes: int = 30
) -> Business:
    """An organization that is always open, connected to all three providers' stand-ins."""
    account_sid, auth_token = "AC" + secrets.token_hex(16), secrets.token_hex(16)
    vapi_secret, channel_token = secrets.token_hex(12), secrets.token_hex(12)
    calendar_id = f"{secrets.token_hex(8)}@group.calendar.google.com"
    client_id, client_secret, refresh_token = (secrets.token_hex(8) for _ in range(3))
    plant(auth_token, vapi_secret, channel_token, client_secret, refresh_token)
    world.twilio_account(account_sid, auth_token, numbers=[number, f"whatsapp:{number}"])
    world.calendar(calendar_id)
    world.google_client(client_id, client_secret, refresh_token)
    with platform.database.transaction(system=True) as session:
        org = Organization(
            name=name,
            timezone="Europe/Berlin",
            phone_number=number,
            transfer_number="+4930999990009",
            assistant_id="asst-" + secrets.token_hex(4),
            opening_hours=ALWAYS_OPEN,
            slot_minutes=slot_minutes,
        )
        session.add(org)
        session.flush()
        tokens = {}
        given = {
            "vapi": {"webhook_secret": vapi_secret},
            "twilio": {"account_sid": account_sid, "auth_token": auth_token, "from_number": number},
            "google-calendar": {
                "channel_token": channel_token,
                "calendar_id": calendar_id,
                "refresh_token": refresh_token,
                "client_id": client_id,
                "client_secret": client_secret,
            },
        }
        if not google:
            del given["google-calendar"]
        for provider, values in given.items():
            tokens[provider] = secrets.token_urlsafe(12)
            plant(tokens[provider])
            sealed = platform.vault.seal(parse_credentials(provider, values))
            session.add(Integration(org_id=org.id, provider=provider, token=tokens[provider], credentials=sealed))
        org_id = org.id
    platform.directory.forget()
    return Business(
        platform=platform,
        id=org_id,
        name=name,
        number=number,
        vapi_token=tokens["vapi"],
        vapi_secret=vapi_secret,
        twilio_token=tokens["twilio"],
        account_sid=account_sid,
        auth_token=auth_token,
        google_token=tokens.get("google-calendar", ""),
        channel_token=channel_token,
        calendar_id=calendar_id,
    )
