"""What is configured at Vapi: assistants, phone numbers, tools and credentials, read and changed.

Owns the operations of Vapi's REST interface ("Assistants", "Phone Numbers", "Tools", "Credentials" in its API
reference) and the form of a credential. Knows not what should be set; changes only the fields it is given.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from pydantic import SecretStr

from app.errors import ProviderUnavailable, ResourceGone
from app.integrations.breaker import protected
from app.integrations.vapi.credentials import VapiCredentials
from app.integrations.vapi.wire import FULL_TIMEOUT_SECONDS, Wire

MOST_LISTED = "1000"
# The mode in which also an assistant that otherwise waits for the caller says its first message, and at once.
SPEAKS_FIRST = "assistant-speaks-first"
SECRET_HEADER = "X-Vapi-Secret"  # noqa: S105 - the header's name
Thing = dict[str, Any]


class VapiSettings:
    """The settings of one private key's organization at Vapi. Thread-safe.

    Every operation raises CircuitOpen, ProviderUnavailable, ProviderThrottled, CredentialsRefused or
    ProviderRefused. Answers are Vapi's own documents, which may hold secrets: never log one.
    """

    def __init__(self, base_url: str, private_key: str | SecretStr) -> None:
        key = private_key.get_secret_value() if isinstance(private_key, SecretStr) else private_key
        self._wire = Wire(base_url, key)

    def find_assistant(self, assistant_id: str) -> Thing | None:
        """The assistant; None when Vapi does not know it."""
        return self._find("assistant", assistant_id)

    def list_phone_numbers(self) -> list[Thing]:
        """All phone numbers, the newest first."""
        return self._list("phone-number")

    def list_tools(self) -> list[Thing]:
        """All tools, the newest first."""
        return self._list("tool")

    def list_credentials(self) -> list[Thing]:
        """All credentials, the newest first, without their secrets."""
        return self._list("credential")

    def change(self, kind: str, thing_id: str, fields: Thing) -> None:
        """Set fields of an ``assistant``, ``phone-number``, ``tool`` or ``credential``. Safe to repeat."""
        self._ask("PATCH", f"/{kind}/{quote(thing_id, safe='')}", fields)

    def create(self, kind: str, fields: Thing) -> str:
        """Make a ``tool`` or a ``credential``; returns its id. Vapi has no key that would prevent a second one."""
        made = self._ask("POST", f"/{kind}", fields)
        if not isinstance(made, dict) or not isinstance(made.get("id"), str):
            raise ProviderUnavailable("Vapi's answer cannot be understood")
        made_id: str = made["id"]
        return made_id

    def _find(self, kind: str, thing_id: str) -> Thing | None:
        try:
            found = self._ask("GET", f"/{kind}/{quote(thing_id, safe='')}")
        except ResourceGone:
            return None
        if not isinstance(found, dict):
            raise ProviderUnavailable("Vapi's answer cannot be understood", maybe_done=False)
        return found

    def _list(self, kind: str) -> list[Thing]:
        found = self._ask("GET", f"/{kind}", query={"limit": MOST_LISTED})
        if not isinstance(found, list):
            raise ProviderUnavailable("Vapi's answer is not a list", maybe_done=False)
        return [one for one in found if isinstance(one, dict)]

    @protected("vapi")
    def _ask(self, method: str, path: str, body: Thing | None = None, query: dict[str, str] | None = None) -> Any:
        return self._wire.ask(method, path, body=body, query=query, timeout_seconds=FULL_TIMEOUT_SECONDS)


def authentication_plan(credentials: VapiCredentials) -> Thing:
    """How Vapi is to prove itself with these credentials: our header with the secret, or a signature."""
    if credentials.required_hmac is None:
        assert credentials.webhook_secret is not None
        return {
            "type": "bearer",
            "token": credentials.webhook_secret.get_secret_value(),
            "headerName": SECRET_HEADER,
            "bearerPrefixEnabled": False,
        }
    secret = credentials.hmac_secret or credentials.webhook_secret
    assert secret is not None
    plan = credentials.hmac
    covers_time = "{timestamp}" in plan.payload_format
    return {
        "type": "hmac",
        "secretKey": secret.get_secret_value(),
        "secretIsBase64": bool(credentials.hmac_secret_is_base64),
        "algorithm": plan.algorithm,
        "signatureHeader": plan.header,
        "timestampHeader": plan.timestamp_header,
        "includeTimestamp": covers_time,
        "payloadFormat": plan.payload_format,
        "signatureEncoding": plan.encoding,
        **({"signaturePrefix": plan.prefix} if plan.prefix else {}),
        **({"messageIdHeader": plan.message_id_header} if "{svix-id}" in plan.payload_format else {}),
    }
