"""The spool: where a webhook goes that the database cannot take just now, and what is still in it.

Owns what a line holds (the request as it came, who it is from if that was proven, what was answered; encrypted with
CREDENTIALS_KEYS) and when an event has to wait behind others of its lane. Files and their order are app/spool's, the
way back is ``spool_drain``'s. An event in the spool is not accepted yet as far as the books go: it is when the
database has it.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson

from app.errors import DatabaseUnavailable
from app.integrations.events import InboundEvent, WebhookRequest
from app.observability import context, metrics
from app.observability.logging import get_logger
from app.spool import UNPROVEN, Contents, Folder, Mark, SpoolRefused

if TYPE_CHECKING:
    from app.config import Settings
    from app.services.credentials import Vault
    from app.services.directory import Endpoint

MOST_UNPROVEN = 2_000  # whoever knows no secret can send these: all of them are at most a third of 1 GB
LONGEST_UNPROVEN = 128_000
COMPRESSION = 1  # of a JSON it takes off two thirds in no time
NEAR_ITS_BOUND = 0.8
_NEVER_KEPT = {"cookie"}

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Proven:
    """From which integration a request is, as was proven when it came. ``remark``: what was said of the proof."""

    integration_id: UUID
    org_id: UUID
    is_platform: bool
    remark: str | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """One webhook in the spool. With ``answer`` it was answered; ``undone`` says that this was a promise to do it."""

    provider: str
    token: str
    request: WebhookRequest
    received_at: datetime
    proven: Proven | None = None
    answer: dict[str, Any] | None = None
    undone: bool = False


class Spool:
    """One process's door to its host's spool. Thread-safe."""

    def __init__(self, settings: Settings, vault: Vault) -> None:
        self.folder = Folder(Path(settings.spool_dir), most_bytes=settings.spool_max_bytes)
        self._most_bytes = settings.spool_max_bytes
        self._vault = vault

    def keep_event(
        self, endpoint: Endpoint, event: InboundEvent, *, answer: dict[str, Any] | None = None, undone: bool = False
    ) -> None:
        """Keep a verified event whose owner is known. Raises DatabaseUnavailable when it cannot be kept either."""
        assert event.request is not None
        self._append(
            _keepable(endpoint, event.request, remark=event.remark, answer=answer, undone=undone),
            Mark(_lane(endpoint.org_id, event.lane_key or f"event:{event.event_key}")),
        )
        log.info("webhook.spooled", **_told(endpoint.provider), org_id=str(endpoint.org_id), type=event.type)

    def keep_request(self, endpoint: Endpoint, request: WebhookRequest, *, remark: str | None = None) -> None:
        """Keep a verified request of which more cannot be known just now. Raises DatabaseUnavailable."""
        self._append(_keepable(endpoint, request, remark=remark), Mark(_door(endpoint.provider, endpoint.token)))
        log.info("webhook.spooled", **_told(endpoint.provider))

    def keep_unproven(self, provider: str, token: str, request: WebhookRequest) -> None:
        """Keep what could not be verified, because this process never knew its endpoint; there is little room for it.

        Raises DatabaseUnavailable.
        """
        if len(request.body) > LONGEST_UNPROVEN:
            raise DatabaseUnavailable("the database is away, and this is too large to be kept unverified")
        kept = Kept(provider, token, request, datetime.now(UTC))
        self._append(kept, Mark(_door(provider, token), UNPROVEN))
        log.info("webhook.spooled", **_told(provider), proven=False)

    def is_ahead_of(self, endpoint: Endpoint, event: InboundEvent) -> bool:
        """Whether earlier ones of the event's lane are in the spool, so that it has to go there too."""
        door = _door(endpoint.provider, endpoint.token)
        lanes = [_lane(endpoint.org_id, event.lane_key)] if event.lane_key else []
        try:
            return self.folder.holds(door, *lanes)
        except OSError as error:  # a folder that cannot be read: nothing can be put into it either
            log.error("spool.unreadable", reason=error.strerror)
            return False

    def is_ahead_of_any(self, events: Iterable[tuple[Endpoint, InboundEvent]]) -> bool:
        """The same of several, with one look at the folder while it is empty."""
        return not self.folder.is_still_empty() and any(self.is_ahead_of(*one) for one in events)

    def contents(self) -> Contents:
        """How much is in it."""
        return self.folder.contents()

    def fault(self) -> str | None:
        """Why it takes nothing just now; None when it does."""
        try:
            return self.folder.fault()
        except OSError as error:
            return error.strerror or type(error).__name__

    def is_nearly_full(self, contents: Contents) -> bool:
        """Whether somebody should see to it soon."""
        return contents.bytes > NEAR_ITS_BOUND * self._most_bytes

    def read(self, sealed: bytes) -> Kept:
        """What a line holds; raises ConfigurationError when no key opens it."""
        return _unpacked(self._vault.open_bytes(sealed))

    def _append(self, kept: Kept, mark: Mark) -> None:
        try:
            self.folder.append(mark, self._vault.seal_bytes(_packed(kept)), most_unproven=MOST_UNPROVEN)
        except SpoolRefused as refused:
            metrics.spool_refused(kept.provider)
            log.error("spool.refused", provider=kept.provider, reason=str(refused))
            raise DatabaseUnavailable(f"the database is away, and the spool takes nothing: {refused}") from None
        metrics.webhook_spooled(kept.provider)


def _keepable(
    endpoint: Endpoint,
    request: WebhookRequest,
    *,
    remark: str | None,
    answer: dict[str, Any] | None = None,
    undone: bool = False,
) -> Kept:
    proven = Proven(endpoint.integration_id, endpoint.org_id, endpoint.is_platform, remark)
    return Kept(endpoint.provider, endpoint.token, request, datetime.now(UTC), proven, answer, undone)


def _told(provider: str) -> dict[str, Any]:
    return {"provider": provider, "duration_ms": context.request_ms()}


def _lane(org_id: UUID, lane_key: str) -> str:
    return _hash(f"lane:{org_id}:{lane_key}")


def _door(provider: str, token: str) -> str:
    return _hash(f"door:{provider}:{token}")


def _hash(named: str) -> str:
    return hashlib.blake2b(named.encode(errors="backslashreplace"), digest_size=8).hexdigest()


def _packed(kept: Kept) -> bytes:
    """A line of JSON with everything but the body, and the body as it is; compressed."""
    request = kept.request
    head = {
        "provider": kept.provider,
        "token": kept.token,
        "received_at": kept.received_at.isoformat(),
        "method": request.method,
        "url": request.url,
        "headers": {name: value for name, value in request.headers.items() if name not in _NEVER_KEPT},
        "proven": kept.proven and {name: getattr(kept.proven, name) for name in Proven.__slots__},
        "answer": kept.answer,
        "undone": kept.undone,
    }
    return zlib.compress(orjson.dumps(head) + b"\n" + request.body, COMPRESSION)


def _unpacked(packed: bytes) -> Kept:
    line, _, body = zlib.decompress(packed).partition(b"\n")
    head = orjson.loads(line)
    proven = head["proven"]
    if proven:
        proven["integration_id"], proven["org_id"] = UUID(proven["integration_id"]), UUID(proven["org_id"])
    return Kept(
        head["provider"],
        head["token"],
        WebhookRequest(head["method"], head["url"], head["headers"], body),
        datetime.fromisoformat(head["received_at"]),
        Proven(**proven) if proven else None,
        head["answer"],
        head["undone"],
    )
