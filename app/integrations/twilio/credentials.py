"""What an organization must give to be reached and heard through its Twilio account.

Owns the shape of the credentials and what is said when they are wrong; asks nobody whether they work.
"""

from __future__ import annotations

import re
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationInfo, field_validator, model_validator

from app.integrations.twilio.addresses import without_channel

_SHAPES = {
    "account_sid": (r"AC[0-9a-f]{32}", "is AC and 32 hexadecimal digits"),
    "messaging_service_sid": (r"MG[0-9a-f]{32}", "is MG and 32 hexadecimal digits"),
    "api_key_sid": (r"SK[0-9a-f]{32}", "is SK and 32 hexadecimal digits"),
    "from_number": (r"\+[1-9][0-9]{6,14}", "is a number like +12025550123"),
    "whatsapp_from": (r"\+[1-9][0-9]{6,14}", "is a number like +12025550123"),
}


class TwilioCredentials(BaseModel):
    """One Twilio account (or subaccount, which signs with a token of its own) and whom it sends as.

    With an API key calls are made with it; webhooks are signed with the auth token all the same
    (Twilio docs, "Webhooks security"). WhatsApp goes out from ``whatsapp_from`` or ``from_number``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True, hide_input_in_errors=True)

    account_sid: str
    auth_token: SecretStr
    from_number: str | None = None
    whatsapp_from: str | None = None
    messaging_service_sid: str | None = None
    api_key_sid: str | None = None
    api_key_secret: SecretStr | None = None

    @field_validator("whatsapp_from", mode="before")
    @classmethod
    def _drop_prefix(cls, value: Any) -> Any:
        return without_channel(value.strip()) if isinstance(value, str) else value

    @field_validator(*_SHAPES)
    @classmethod
    def _check_shape(cls, value: str | None, info: ValidationInfo) -> str | None:
        shape, wording = _SHAPES[info.field_name or ""]
        if value is not None and not re.fullmatch(shape, value):
            raise ValueError(f"{info.field_name} {wording}")
        return value

    @field_validator("auth_token", "api_key_secret")
    @classmethod
    def _check_secret(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if value is not None and not value.get_secret_value().strip():
            raise ValueError(f"{info.field_name} must not be empty")
        return value

    @model_validator(mode="after")
    def _check_key(self) -> Self:
        if (self.api_key_sid is None) != (self.api_key_secret is None):
            raise ValueError("api_key_sid and api_key_secret belong together: give both or neither")
        return self

    @property
    def whatsapp_sender(self) -> str | None:
        """The number that WhatsApp messages come from."""
        return self.whatsapp_from or self.from_number
