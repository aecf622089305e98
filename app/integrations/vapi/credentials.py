"""What an operator sets to connect an organization to Vapi.

Owns the keys, their defaults and what is refused; every value may arrive as text. Verifies nothing.
The ``hmac_*`` keys mirror the fields of ``HmacAuthenticationPlan`` in Vapi's server SDK.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    model_validator,
)

DEFAULT_SIGNATURE_HEADER = "x-signature"
DEFAULT_TIMESTAMP_HEADER = "x-timestamp"
DEFAULT_MESSAGE_ID_HEADER = "svix-id"
DEFAULT_FORMAT = "{timestamp}.{body}"

Algorithm = Literal["sha256", "sha512", "sha1"]
Encoding = Literal["hex", "base64"]


@dataclass(frozen=True, slots=True)
class HmacPlan:
    """How a signature is made: key, where it stands, what it covers. Header names are lower-case."""

    key: bytes = field(repr=False)
    header: str = DEFAULT_SIGNATURE_HEADER
    timestamp_header: str = DEFAULT_TIMESTAMP_HEADER
    message_id_header: str = DEFAULT_MESSAGE_ID_HEADER
    payload_format: str = DEFAULT_FORMAT
    algorithm: Algorithm = "sha256"
    encoding: Encoding = "hex"
    prefix: str = ""


def _check_header(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name):
        raise ValueError("is not a header name")
    return name.lower()


def _lowered(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


HeaderName = Annotated[str, AfterValidator(_check_header)]
Secret = Annotated[SecretStr, Field(min_length=1)]


class VapiCredentials(BaseModel):
    """One organization's secrets at Vapi. Any ``hmac_*`` key makes HMAC the only proof accepted."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    webhook_secret: Secret | None = Field(None, description="what Vapi sends, or signs with")
    private_key: Secret | None = Field(None, description="of this organization, for Vapi's REST interface")

    hmac_secret: Secret | None = Field(None, description="the signing key; default webhook_secret")
    hmac_header: HeaderName | None = Field(
        None, validation_alias=AliasChoices("hmac_header", "hmac_signature_header"), description="default x-signature"
    )
    hmac_timestamp_header: HeaderName | None = Field(None, description="default x-timestamp")
    hmac_message_id_header: HeaderName | None = Field(None, description="what {svix-id} stands for; default svix-id")
    hmac_include_timestamp: bool | None = Field(None, description="whether the signature covers a time; default true")
    hmac_payload_format: str | None = Field(
        None,
        validation_alias=AliasChoices("hmac_payload_format", "hmac_format"),
        description="default {timestamp}.{body}; also {method}, {url}, {svix-id}",
    )
    hmac_algorithm: Annotated[Algorithm, BeforeValidator(_lowered)] | None = Field(None, description="default sha256")
    hmac_encoding: Annotated[Encoding, BeforeValidator(_lowered)] | None = Field(
        None, validation_alias=AliasChoices("hmac_encoding", "hmac_signature_encoding"), description="default hex"
    )
    hmac_prefix: str | None = Field(
        None,
        validation_alias=AliasChoices("hmac_prefix", "hmac_signature_prefix"),
        description='what stands before the signature, such as "sha256="',
    )
    hmac_secret_is_base64: bool | None = Field(None, description="default false")

    @model_validator(mode="after")
    def _check_together(self) -> VapiCredentials:
        if self.webhook_secret is None and self.hmac_secret is None:
            raise ValueError("webhook_secret is needed (or hmac_secret)")
        covered = self.hmac_payload_format or DEFAULT_FORMAT
        if "{body}" not in covered:
            raise ValueError("hmac_payload_format must contain {body}, or the signature proves nothing about it")
        if self.hmac_payload_format and "{timestamp}" in covered and self.hmac_include_timestamp is False:
            raise ValueError("hmac_payload_format contains {timestamp} while hmac_include_timestamp is false")
        if self.hmac_include_timestamp and "{timestamp}" not in covered:
            raise ValueError("hmac_include_timestamp is true while hmac_payload_format has no {timestamp}")
        self._key()
        return self

    @cached_property
    def required_hmac(self) -> HmacPlan | None:
        """The plan every message must satisfy, when any ``hmac_*`` key is set."""
        settings = [name for name in type(self).model_fields if name.startswith("hmac_")]
        return self.hmac if any(getattr(self, name) is not None for name in settings) else None

    @cached_property
    def hmac(self) -> HmacPlan:
        """The plan with Vapi's defaults where nothing is set."""
        default_format = "{body}" if self.hmac_include_timestamp is False else DEFAULT_FORMAT
        return HmacPlan(
            key=self._key(),
            header=self.hmac_header or DEFAULT_SIGNATURE_HEADER,
            timestamp_header=self.hmac_timestamp_header or DEFAULT_TIMESTAMP_HEADER,
            message_id_header=self.hmac_message_id_header or DEFAULT_MESSAGE_ID_HEADER,
            payload_format=self.hmac_payload_format or default_format,
            algorithm=self.hmac_algorithm or "sha256",
            encoding=self.hmac_encoding or "hex",
            prefix=self.hmac_prefix or "",
        )

    def _key(self) -> bytes:
        secret = self.hmac_secret or self.webhook_secret
        assert secret is not None
        text = secret.get_secret_value()
        if not self.hmac_secret_is_base64:
            return text.encode()
        try:
            # Svix and Standard Webhooks write their keys as whsec_<base64>.
            return base64.b64decode(text.removeprefix("whsec_"), validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("hmac_secret_is_base64 is true and the secret is not base64") from None
