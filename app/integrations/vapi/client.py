"""Asking Vapi: start a call, look one up, list them, see whether Vapi is there.

Owns the operations of Vapi's REST interface that the product uses (api.vapi.ai, "Calls" and
"Assistants" in Vapi's API reference). Never retries: whether a repetition is safe is for the caller to know.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from pydantic import SecretStr

from app.errors import ProviderUnavailable
from app.integrations.breaker import protected
from app.integrations.reading import scrubbed
from app.integrations.vapi.facts import moment, section, text
from app.integrations.vapi.wire import FULL_TIMEOUT_SECONDS, Wire

PROBE_TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class VapiCall:
    """A call as Vapi's REST interface describes it, where, unlike in webhooks, the status is current.

    ``document`` is the whole answer, scrubbed of secrets.
    """

    id: str
    type: str | None
    status: str | None
    assistant_id: str | None
    phone_number_id: str | None
    customer_number: str | None
    created_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    ended_reason: str | None
    document: dict[str, Any] = field(repr=False)


class VapiClient:
    """Vapi's REST interface for one private key. Thread-safe.

    Every operation raises CircuitOpen, ProviderUnavailable, ProviderThrottled, CredentialsRefused or
    ProviderRefused, and DeadlineExceeded when given less than 2 s that were not enough.
    """

    def __init__(self, base_url: str, private_key: str | SecretStr) -> None:
        key = private_key.get_secret_value() if isinstance(private_key, SecretStr) else private_key
        self._wire = Wire(base_url, key)

    @protected("vapi")
    def start_call(
        self,
        *,
        assistant_id: str,
        phone_number_id: str,
        customer_number: str,
        assistant_overrides: dict[str, Any] | None = None,
        name: str | None = None,
        timeout_seconds: float = FULL_TIMEOUT_SECONDS,
    ) -> VapiCall:
        """Ring ``customer_number`` (E.164) and let the assistant speak; ``name`` is for people to find the call by.

        Vapi has no idempotency key: after an error with ``maybe_done`` look for the call before repeating.
        """
        body: dict[str, Any] = {
            "assistantId": assistant_id,
            "phoneNumberId": phone_number_id,
            "customer": {"number": customer_number},
        }
        if assistant_overrides:
            body["assistantOverrides"] = assistant_overrides
        if name:
            body["name"] = name
        return _call(self._wire.ask("POST", "/call", body=body, timeout_seconds=timeout_seconds), maybe_done=True)

    @protected("vapi")
    def fetch_call(self, call_id: str, *, timeout_seconds: float = FULL_TIMEOUT_SECONDS) -> VapiCall:
        """The call as it now is; raises ResourceGone when Vapi does not know it."""
        return _call(self._wire.ask("GET", f"/call/{quote(call_id, safe='')}", timeout_seconds=timeout_seconds))

    @protected("vapi")
    def list_calls(
        self,
        *,
        limit: int = 100,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        timeout_seconds: float = FULL_TIMEOUT_SECONDS,
    ) -> list[VapiCall]:
        """The newest calls, at most ``limit``, created between (aware) moments if they are given, without these."""
        query = {"limit": str(limit)}
        for name, edge in (("createdAtGt", created_after), ("createdAtLt", created_before)):
            if edge is not None:
                query[name] = edge.astimezone(UTC).isoformat(timespec="milliseconds")
        found = self._wire.ask("GET", "/call", query=query, timeout_seconds=timeout_seconds)
        return [_call(item) for item in _listed(found)]

    @protected("vapi")
    def probe(self, *, timeout_seconds: float = PROBE_TIMEOUT_SECONDS) -> None:
        """Return if Vapi answers and knows the key; raise what is wrong otherwise."""
        _listed(self._wire.ask("GET", "/assistant", query={"limit": "1"}, timeout_seconds=timeout_seconds))


def _listed(answer: Any) -> list[Any]:
    if not isinstance(answer, list):
        raise ProviderUnavailable("Vapi's answer is not a list", maybe_done=False)
    return answer


def _call(answer: Any, *, maybe_done: bool = False) -> VapiCall:
    call_id = text(answer.get("id")) if isinstance(answer, dict) else None
    if call_id is None:
        raise ProviderUnavailable("Vapi's answer is not a call", maybe_done=maybe_done)
    document: dict[str, Any] = scrubbed(answer)
    return VapiCall(
        id=call_id,
        type=text(document.get("type")),
        status=text(document.get("status")),
        assistant_id=text(document.get("assistantId")),
        phone_number_id=text(document.get("phoneNumberId")),
        customer_number=text(section(document, "customer").get("number")),
        created_at=moment(document.get("createdAt")),
        started_at=moment(document.get("startedAt")),
        ended_at=moment(document.get("endedAt")),
        ended_reason=text(document.get("endedReason")),
        document=document,
    )
