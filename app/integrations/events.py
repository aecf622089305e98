"""The shapes in which every provider's webhooks come into the house.

Owns the three data classes between ``http`` and the providers; must not know any one provider.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class WebhookRequest:
    """A webhook as it arrived. ``url`` is the exact public URL, still escaped, with its query string.

    ``headers`` has lower-case names; ``body`` is the raw bytes. Nothing here is trusted yet.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class ConsentChange:
    """STOP or START: the address (E.164, or a WhatsApp user id) and whether texts are still wanted."""

    address: str
    opted_out: bool


@dataclass(frozen=True, slots=True)
class InboundEvent:
    """One verified, understood webhook.

    ``event_key`` is unique within its integration: a second event with the same key is the same
    event (at most 200 characters). ``lane_key`` names the call, conversation or calendar whose
    events are handled in order (at most 200; "" when order does not matter). Neither contains a phone number.
    ``remark`` is noted with it. ``request`` is what it was read from, for when it cannot be stored just now.
    ``payload`` is plain JSON, scrubbed of secrets, without NUL characters.
    """

    provider: str
    type: str
    event_key: str
    lane_key: str
    payload: dict[str, Any]
    occurred_at: datetime | None = None
    consent: ConsentChange | None = None
    awaits_answer: Literal["tool-calls", "assistant-request", "transfer-destination-request"] | None = field(
        default=None
    )
    remark: str | None = None
    request: WebhookRequest | None = field(default=None, repr=False, compare=False)
