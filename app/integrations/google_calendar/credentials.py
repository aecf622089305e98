"""What an operator sets to connect an organization to a Google calendar.

Owns the keys, their defaults and what is refused; every value may arrive as text. Asks nobody.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

_ACCOUNT_FIELDS = ("client_email", "private_key")
_CONSENT_FIELDS = ("refresh_token", "client_id", "client_secret")

Secret = Annotated[SecretStr, Field(min_length=1)]
Text = Annotated[str, Field(min_length=1)]


class GoogleCalendarCredentials(BaseModel):
    """One organization's way to its calendar: a service account's key, or a person's consent.

    ``channel_token`` alone is enough to receive pushes and not enough to ask for anything.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    channel_token: Secret | None = Field(None, description="the token given to events.watch; proves a push")
    channel_id: Text | None = Field(None, description="when set, only this channel's pushes are accepted")
    resource_id: Text | None = Field(None, description="when set, only this resource's pushes are accepted")

    calendar_id: Text = Field("primary", description="the calendar's id, usually an e-mail address")
    service_account_json: Secret | None = Field(None, description="the service account's key file, as text")
    subject: Text | None = Field(None, description="the person a service account acts for (domain-wide delegation)")
    refresh_token: Secret | None = Field(None, description="from a person's consent; needs the client's id and secret")
    client_id: Text | None = Field(None, description="the OAuth client's id")
    client_secret: Secret | None = Field(None, description="the OAuth client's secret")
    token_uri: Annotated[str, Field(pattern=r"^https?://")] | None = Field(
        None, description="where access tokens come from; default Google's"
    )
    changes_per_second: float | None = Field(None, gt=0, le=1000, description="default GOOGLE_CHANGES_PER_SECOND")

    @field_validator("service_account_json")
    @classmethod
    def _check_account(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        try:
            account = json.loads(value.get_secret_value())
        except ValueError:
            raise ValueError("is not JSON") from None
        if not isinstance(account, dict) or account.get("type") != "service_account":
            raise ValueError('is not the key file of a service account ("type": "service_account")')
        missing = [name for name in _ACCOUNT_FIELDS if not isinstance(account.get(name), str)]
        if missing:
            raise ValueError(f"lacks {', '.join(missing)}")
        return value

    @model_validator(mode="after")
    def _check_together(self) -> GoogleCalendarCredentials:
        consent = [name for name in _CONSENT_FIELDS if getattr(self, name) is not None]
        if consent and len(consent) < len(_CONSENT_FIELDS):
            raise ValueError(f"{', '.join(_CONSENT_FIELDS)} belong together")
        if consent and self.service_account_json is not None:
            raise ValueError("either service_account_json or refresh_token, not both")
        if self.subject is not None and self.service_account_json is None:
            raise ValueError("subject needs service_account_json")
        if not consent and self.service_account_json is None and self.channel_token is None:
            raise ValueError("service_account_json, or refresh_token with client_id and client_secret, is needed")
        return self

    @property
    def can_ask(self) -> bool:
        """Whether they open the API, and do not only prove pushes."""
        return self.service_account_json is not None or self.refresh_token is not None

    def account(self) -> dict[str, Any] | None:
        """The service account's key file, when there is one."""
        if self.service_account_json is None:
            return None
        account: dict[str, Any] = json.loads(self.service_account_json.get_secret_value())
        return account
