"""The shape of a front door: a provider whose events are stored, found again and forwarded, and nothing else.

Owns what a module in ``doors/`` has to bring, and the readings that most of them need. With it come routes,
commands, verification modes, quarantine, rotation, limits, metrics and forwarding. Must not know any one provider.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from app.errors import MalformedEvent, SignatureInvalid
from app.integrations.events import InboundEvent, WebhookRequest
from app.integrations.reading import read_json, storable_without

JSON = "application/json"
MOST_SKEW_SECONDS = 300  # what Stripe's and Standard Webhooks' own libraries allow, either way
LONGEST_TYPE = 100

_SECONDS = re.compile(r"[0-9]{1,12}")
_PLAIN = re.compile(r"[\w.:-]{1,100}", re.ASCII)

Secret = Annotated[SecretStr, Field(min_length=1)]


class DoorCredentials(BaseModel):
    """What an operator sets to connect an organization; every value arrives as text."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True, hide_input_in_errors=True)


@dataclass(frozen=True, slots=True)
class Sample:
    """What the provider would send: headers, signed, and the body."""

    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class FrontDoor:
    """One provider.

    ``verify(request, credentials, *, now)`` runs on the raw bytes and raises SignatureMissing or SignatureInvalid;
    ``parse(request)`` makes one event or raises MalformedEvent. ``greet(query, credentials)``, where a provider
    asks with a GET before it sends anything, returns what it wants to hear or raises as ``verify`` does.
    ``sample(event, secret, now)`` makes one of ``events`` for `simulate`.
    """

    provider: str
    credentials: type[DoorCredentials]
    verify: Callable[..., None]
    parse: Callable[[WebhookRequest], InboundEvent]
    events: tuple[str, ...]
    sample: Callable[[str, str, datetime], Sample]
    content_types: tuple[str, ...] = (JSON,)
    greet: Callable[[Mapping[str, str], Any], str] | None = None


def read_object(request: WebhookRequest, *, secrets: frozenset[str] = frozenset()) -> dict[str, Any]:
    """The body as a JSON object that can be stored, without what stands under ``secrets``. Raises MalformedEvent."""
    try:
        body = read_json(request.body)
    except ValueError:
        raise MalformedEvent("the body is not JSON") from None
    if not isinstance(body, dict):
        raise MalformedEvent("the body is not a JSON object")
    read: dict[str, Any] = storable_without(body, secrets)
    return read


def text_at(value: Any, *names: str) -> str | None:
    """The text under these names, one inside the other; None when there is none or it is something else."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, str) and value else None


def plain_id(value: str) -> str:
    """An id as part of a key: as it is, or its hash where it is long or strange."""
    return value if _PLAIN.fullmatch(value) else hashed(value)


def hashed(*parts: str) -> str:
    """A short name for these parts that shows none of them: what may hold a number or an address."""
    return hashlib.sha256("\x00".join(parts).encode(errors="backslashreplace")).hexdigest()[:32]


def read_moment(value: Any) -> datetime | None:
    """Seconds since 1970, as a number or as text, or an ISO time with its offset; None for anything else."""
    try:
        if isinstance(value, str) and not _SECONDS.fullmatch(value):
            moment = datetime.fromisoformat(value)
            return moment.astimezone(UTC) if moment.tzinfo else None
        return None if isinstance(value, bool) or value is None else datetime.fromtimestamp(float(value), UTC)
    except (ValueError, TypeError, OverflowError, OSError):
        return None


def check_age(stamp: str, now: datetime) -> None:
    """Raise SignatureInvalid unless this is a time in seconds, at most five minutes away."""
    if not _SECONDS.fullmatch(stamp):
        raise SignatureInvalid("the signature's timestamp is malformed")
    if abs(now.timestamp() - int(stamp)) > MOST_SKEW_SECONDS:
        raise SignatureInvalid("the signature is too old, or a clock is wrong")


def wire(text: str) -> bytes:
    """The bytes of a header as they came: WSGI hands them over as Latin-1 text."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
