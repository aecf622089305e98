"""What an organization must give to be reached and heard through its Twilio account.

Owns the shape of the credentials and what is said when they are wrong; asks nobody whether they work.
"""

from __future__ import annotations

import re
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationInfo, field_validator, model_validator

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
    # Of a platform that keeps customers in subaccounts: "AC...=token,AC...=token"
    subaccount_tokens: SecretStr | None = None
    # what its sender may send; None: TWILIO_TEXTS_PER_SECOND
    texts_per_second: float | None = Field(None, gt=0, le=1000)

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

    @field_validator("subaccount_tokens")
    @classmethod
    def _check_subaccounts(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            for pair in value.get_secret_value().split(","):
                sid, equals, token = pair.strip().partition("=")
                if not equals or not token or not re.fullmatch(_SHAPES["account_sid"][0], sid):
                    raise ValueError("subaccount_tokens is AC...=token, separated by commas")
        return value

    @model_validator(mode="after")
    def _check_key(self) -> Self:
        if (self.api_key_sid is None) != (self.api_key_secret is None):
            raise ValueError("api_key_sid and api_key_secret belong together: give both or neither")
        return self

    def token_of(self, account_sid: str | None) -> SecretStr:
        """What the account signs with: a subaccount's own token where it is known, else the main one's."""
        return self._subaccounts().get(account_sid or "", self.auth_token)

    def speaking_for(
        self, *, account_sid: str | None, service_sid: str | None, number: str | None, whatsapp: str | None
    ) -> TwilioCredentials:
        """The platform's credentials as one organization sends by them: from its own sender, by its own subaccount."""
        changes: dict[str, Any] = {
            "from_number": number,
            "whatsapp_from": whatsapp or number,
            "messaging_service_sid": service_sid,
            "subaccount_tokens": None,
        }
        if account_sid in self._subaccounts():
            token = self.token_of(account_sid)
            changes |= {"account_sid": account_sid, "auth_token": token, "api_key_sid": None, "api_key_secret": None}
        return self.model_copy(update=changes)

    def of_each_account(self) -> list[TwilioCredentials]:
        """These, and as many more as there are subaccounts whose token is known: each lists only what is its own."""
        theirs = [
            self.speaking_for(
                account_sid=sid, service_sid=self.messaging_service_sid, number=self.from_number, whatsapp=None
            )
            for sid in self._subaccounts()
            if sid != self.account_sid
        ]
        return [self, *theirs]

    def _subaccounts(self) -> dict[str, SecretStr]:
        if self.subaccount_tokens is None:
            return {}
        pairs = (pair.strip().partition("=") for pair in self.subaccount_tokens.get_secret_value().split(","))
        return {sid: SecretStr(token) for sid, _, token in pairs}

    @property
    def whatsapp_sender(self) -> str | None:
        """The number that WhatsApp messages come from."""
        return self.whatsapp_from or self.from_number
