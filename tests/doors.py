"""Front doors as tests need them, whatever doors there are: connected, and posted to as their senders do."""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import urlencode
from uuid import UUID

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app.integrations.doors import DOORS
from app.integrations.front_door import FrontDoor, Sample
from app.services import connections
from app.services.platform import Platform
from tests.leaks import plant


def new_secret() -> str:
    """One that all doors take: its form is Standard Webhooks', the others do not mind."""
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()
    plant(secret)
    return secret


def keys_of(provider: str, secret: str) -> dict[str, str]:
    """What must be set, all of it the same secret."""
    known = DOORS[provider].credentials.model_fields
    return {name: secret for name, one in known.items() if one.is_required() or name == "signing_secret"}


@dataclass
class Connected:
    """One organization's door, with the secret its sender signs with."""

    platform: Platform
    org_id: UUID
    provider: str
    secret: str = field(default_factory=new_secret)
    id: str = ""
    token: str = ""

    def __post_init__(self) -> None:
        made = connections.add(
            self.platform, self.org_id, self.provider, keys_of(self.provider, self.secret), actor="test"
        )
        self.id, self.token = made["id"], made["token"]
        plant(self.token)

    @property
    def door(self) -> FrontDoor:
        """What kind of door it is."""
        return DOORS[self.provider]

    def made(self, event: str = "", *, secret: str = "", now: datetime | None = None) -> Sample:
        """What the sender would send."""
        return self.door.sample(event or self.door.events[0], secret or self.secret, now or datetime.now(UTC))

    def post(self, client: FlaskClient, sample: Sample | None = None, **made: str) -> TestResponse:
        """Send it."""
        sample = sample or self.made(**made)
        return client.post(f"/webhooks/{self.provider}/{self.token}", data=sample.body, headers=sample.headers)

    def ask(self, client: FlaskClient, token: str = "", **query: str) -> TestResponse:
        """Meta's greeting."""
        asked = {"hub.mode": "subscribe", "hub.verify_token": token or self.secret, "hub.challenge": "1158201444"}
        return client.get(f"/webhooks/{self.provider}/{self.token}?{urlencode({**asked, **query})}")
