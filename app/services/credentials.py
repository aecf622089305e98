"""Credentials at rest: encrypted with the newest key, readable with any.

Owns encryption and the shape of each provider's credentials. Never logs or raises a value.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from pydantic import BaseModel, SecretStr, ValidationError

from app.errors import ConfigurationError, InvalidInput
from app.integrations.doors import DOORS
from app.integrations.front_door import DoorCredentials
from app.integrations.google_calendar import GoogleCalendarCredentials
from app.integrations.twilio import TwilioCredentials
from app.integrations.vapi import VapiCredentials

Credentials = VapiCredentials | TwilioCredentials | GoogleCalendarCredentials | DoorCredentials

PROVIDERS: dict[str, type[Credentials]] = {
    "vapi": VapiCredentials,
    "twilio": TwilioCredentials,
    "google-calendar": GoogleCalendarCredentials,
    **{door.provider: door.credentials for door in DOORS.values()},
}


_TRAVELS = b"travels:"  # so that nothing sealed for the database passes for it


class Vault:
    """Encrypts and decrypts with CREDENTIALS_KEYS."""

    def __init__(self, keys: list[str]) -> None:
        self._fernet = MultiFernet([Fernet(key) for key in keys])
        self._newest = Fernet(keys[0])

    def seal(self, credentials: Credentials) -> bytes:
        """Encrypted JSON of the credentials."""
        return self._fernet.encrypt(orjson.dumps(_reveal(credentials)))

    def open(self, provider: str, sealed: bytes) -> Credentials:
        """The credentials; raises ConfigurationError when no key fits."""
        try:
            return PROVIDERS[provider].model_validate_json(self._fernet.decrypt(sealed))
        except InvalidToken:
            raise ConfigurationError("CREDENTIALS_KEYS: no key opens an integration's credentials") from None

    def seal_bytes(self, content: bytes) -> bytes:
        """Encrypted, whatever it is."""
        return self._fernet.encrypt(content)

    def open_bytes(self, sealed: bytes) -> bytes:
        """What was sealed; raises ConfigurationError when no key fits."""
        try:
            return self._fernet.decrypt(sealed)
        except InvalidToken:
            raise ConfigurationError("CREDENTIALS_KEYS: no key opens what was sealed") from None

    def is_newest(self, sealed: bytes) -> bool:
        """Whether the first key sealed it."""
        try:
            self._newest.decrypt(sealed)
        except InvalidToken:
            return False
        return True

    def reseal(self, sealed: bytes) -> bytes:
        """The same content sealed with the first key; raises ConfigurationError when no key fits."""
        try:
            return self._fernet.rotate(sealed)
        except InvalidToken:
            raise ConfigurationError("CREDENTIALS_KEYS: no key opens an integration's credentials") from None

    def pack(self, content: bytes, *, good_for: timedelta) -> tuple[str, datetime]:
        """Content that goes through somebody else's hands and comes back unread and unchanged; and until when."""
        now = datetime.now(UTC)
        return self._fernet.encrypt_at_time(_TRAVELS + content, int(now.timestamp())).decode(), now + good_for

    def unpack(self, packed: str, *, good_for: timedelta) -> bytes | None:
        """What was packed no longer than ``good_for`` ago; None for anything else."""
        try:
            content = self._fernet.decrypt(packed.encode(), ttl=int(good_for.total_seconds()))
        except (InvalidToken, UnicodeError):
            return None
        return content.removeprefix(_TRAVELS) if content.startswith(_TRAVELS) else None


def parse_credentials(provider: str, given: dict[str, str]) -> Credentials:
    """Check what an operator typed as key=value; raises InvalidInput naming each wrong key, no value."""
    if provider not in PROVIDERS:
        raise InvalidInput(f"unknown provider; known are {', '.join(PROVIDERS)}")
    try:
        return PROVIDERS[provider].model_validate(given)
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, fault['loc'])) or 'credentials'}: {fault['msg'].removeprefix('Value error, ')}"
            for fault in error.errors(include_input=False, include_url=False)
        ]
        raise InvalidInput("; ".join(faults)) from None


def _reveal(credentials: BaseModel) -> dict[str, Any]:
    revealed = {}
    for name in credentials.model_fields_set:
        value = getattr(credentials, name)
        revealed[name] = value.get_secret_value() if isinstance(value, SecretStr) else value
    return revealed
