"""Refused webhooks that are kept until the secret is mended: encrypted, bounded, and taken in once.

Owns what is kept of a request and for how long. What is kept was refused, and stays nobody's until its proof
holds as of the moment it came.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson

from app.errors import (
    ConfigurationError,
    DatabaseUnavailable,
    MalformedEvent,
    NotFound,
    RequestRefused,
    SignatureInvalid,
    SignatureMissing,
)
from app.integrations.events import WebhookRequest
from app.models import quarantine as rows
from app.models.integrations import find_integration
from app.models.quarantine import QuarantinedWebhook
from app.observability.logging import get_logger
from app.services import audit, intake, routing

if TYPE_CHECKING:
    from app.services.directory import Endpoint
    from app.services.platform import Platform

MOST = 1_000  # of one integration
MOST_BYTES = 50_000_000
PAGE = 50
_NEVER_KEPT = {"cookie"}

log = get_logger(__name__)


def keep(platform: Platform, endpoint: Endpoint, webhook: WebhookRequest, refused: RequestRefused) -> bool:
    """Keep a request that is being refused, and count it; False when there is no room, or no database."""
    sealed = platform.vault.seal_bytes(_packed(webhook))
    try:
        with platform.database.transaction(system=True, statement_timeout_ms=2000) as session:
            rows.count_refusal(session, endpoint.integration_id, refused.code)
            kept = rows.keep(
                session,
                endpoint.integration_id,
                code=refused.code,
                sealed=sealed,
                size=len(webhook.body),
                most=MOST,
                most_bytes=MOST_BYTES,
                age_seconds=rows.KEEP_SECONDS,
            )
    except DatabaseUnavailable:
        kept = False
    say = log.warning if kept else log.error
    say("webhook.quarantined" if kept else "quarantine.full", integration_id=str(endpoint.integration_id))
    return kept


def replay(platform: Platform, integration_id: UUID, *, actor: str) -> dict[str, Any]:
    """Verify again what is kept, with the secret of now as of the moment it came, and take in what passes.

    Returns ``delivered``, ``duplicates`` (came again meanwhile, and was taken in then), ``malformed``,
    ``unreadable`` (sealed with a key that is gone) and ``still_refused``; those last two stay. Safe to repeat.
    Raises NotFound, DatabaseUnavailable.
    """
    platform.directory.forget()
    endpoint = _endpoint(platform, integration_id)
    done = dict.fromkeys(("delivered", "duplicates", "malformed", "still_refused", "unreadable"), 0)
    after = 0
    while True:
        with platform.database.transaction(system=True) as session:
            page = rows.list_kept(session, integration_id=integration_id, after=after, limit=PAGE)
        for row in page:
            fate = _take_in(platform, endpoint, row)
            done[fate] += 1
            if fate not in {"still_refused", "unreadable"}:
                with platform.database.transaction(system=True) as session:
                    rows.release(session, row.id)
        if len(page) < PAGE:
            break
        after = page[-1].id
    with platform.database.transaction(system=True) as session:
        audit.note(
            session, endpoint.org_id, actor=actor, action="quarantine.replay", subject=str(integration_id), **done
        )
    return {"id": str(integration_id), **done}


def _take_in(platform: Platform, endpoint: Endpoint, row: QuarantinedWebhook) -> str:
    from app.services import verification  # noqa: PLC0415 - it keeps through this file

    try:
        webhook = opened(platform, row)
    except ConfigurationError:
        return "unreadable"
    try:
        event = verification.understand(endpoint, webhook, now=row.received_at)
    except (SignatureMissing, SignatureInvalid):
        return "still_refused"
    except MalformedEvent as error:
        intake.keep_malformed(platform, endpoint, webhook.body, reason=str(error))
        return "malformed"
    owner, event = routing.route(platform, endpoint, event)
    return "duplicates" if intake.accept(platform, owner, event).duplicate else "delivered"


def opened(platform: Platform, row: QuarantinedWebhook) -> WebhookRequest:
    """The request as it came. Raises ConfigurationError when no key opens it."""
    return _unpacked(platform.vault.open_bytes(row.sealed))


def _endpoint(platform: Platform, integration_id: UUID) -> Endpoint:
    with platform.database.transaction(system=True) as session:
        row = find_integration(session, integration_id)
        if row is None:
            raise NotFound("no integration has this id")
        return platform.directory.opened(row)


def _packed(webhook: WebhookRequest) -> bytes:
    headers = {name: value for name, value in webhook.headers.items() if name not in _NEVER_KEPT}
    body = base64.b64encode(webhook.body).decode()
    return orjson.dumps({"method": webhook.method, "url": webhook.url, "headers": headers, "body": body})


def _unpacked(packed: bytes) -> WebhookRequest:
    kept: Mapping[str, Any] = orjson.loads(packed)
    return WebhookRequest(kept["method"], kept["url"], kept["headers"], base64.b64decode(kept["body"]))
