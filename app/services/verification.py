"""Whether a webhook is to be believed, and what happens when it is not: refused, counted, or kept for later.

Owns the modes of an integration (``enforce``, ``shadow``, ``quarantine``) and the time in which an old and a
new secret pass side by side. How each provider proves itself is its integration's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from app.errors import DatabaseUnavailable, RequestRefused, SignatureInvalid, SignatureMissing, UnknownEndpoint
from app.integrations import google_calendar, twilio, vapi
from app.integrations.doors import DOORS
from app.integrations.events import InboundEvent, WebhookRequest
from app.models import quarantine as rows
from app.observability import metrics
from app.observability.logging import get_logger
from app.services import quarantine

if TYPE_CHECKING:
    from app.services.credentials import Credentials
    from app.services.directory import Endpoint
    from app.services.platform import Platform

MODES = ("enforce", "shadow", "quarantine")

_VERIFY: dict[str, Callable[..., None]] = {
    "vapi": vapi.verify,
    "twilio": twilio.verify,
    "google-calendar": google_calendar.verify,
    **{door.provider: door.verify for door in DOORS.values()},
}

T = TypeVar("T")

log = get_logger(__name__)


def receive(
    platform: Platform, endpoint: Endpoint, webhook: WebhookRequest, *, now: datetime | None = None
) -> InboundEvent:
    """The event, once its proof holds; in ``shadow`` also when it does not, with a remark that says so.

    ``now``: when it came, if that was not this moment.
    Raises SignatureMissing or SignatureInvalid (in ``quarantine`` the request has been kept then), and
    MalformedEvent for one that is authentic and cannot be understood.
    """
    try:
        return replace(understand(endpoint, webhook, now=now or datetime.now(UTC)), request=webhook)
    except (SignatureMissing, SignatureInvalid) as refused:
        if endpoint.verification == "enforce":
            raise
        metrics.verification_failed(endpoint.provider, endpoint.verification)
        if endpoint.verification == "quarantine":
            quarantine.keep(platform, endpoint, webhook, refused)
            raise
        remark = f"enforce would refuse it: {refused.code}"
        event = replace(read(endpoint.provider, webhook), remark=remark, request=webhook)
        _count(platform, endpoint, refused)
        return event


def understand(endpoint: Endpoint, webhook: WebhookRequest, *, now: datetime) -> InboundEvent:
    """Verify as of ``now``, with the present secret or one that is being replaced, and parse.

    Raises SignatureMissing, SignatureInvalid (both of the present secret), MalformedEvent.
    """
    return _with_either(endpoint, now, lambda credentials: _believe(endpoint, credentials, webhook, now))


def greet(endpoint: Endpoint, query: Mapping[str, str]) -> str:
    """What a provider wants to hear that asks before it sends anything; the modes are for events, not for this.

    Raises SignatureMissing, SignatureInvalid, MalformedEvent, and UnknownEndpoint where none asks.
    """
    ask = DOORS[endpoint.provider].greet
    if ask is None:
        raise UnknownEndpoint
    return _with_either(endpoint, datetime.now(UTC), lambda credentials: ask(query, credentials))


def _with_either(endpoint: Endpoint, now: datetime, check: Callable[[Credentials], T]) -> T:
    """With the present secret, or with one that is being replaced; the refusal is the present one's."""
    try:
        return check(endpoint.credentials)
    except (SignatureMissing, SignatureInvalid):
        previous = endpoint.previous
        if previous is None or endpoint.previous_until is None or now >= endpoint.previous_until:
            raise
        try:
            return check(previous)
        except (SignatureMissing, SignatureInvalid):
            pass
        raise


def _believe(endpoint: Endpoint, credentials: Credentials, webhook: WebhookRequest, now: datetime) -> InboundEvent:
    _VERIFY[endpoint.provider](webhook, credentials, now=now)
    account = getattr(credentials, "account_sid", None)
    return read(endpoint.provider, webhook, account_sid=None if endpoint.is_platform else account)


def read(provider: str, webhook: WebhookRequest, *, account_sid: str | None = None) -> InboundEvent:
    """The event a request tells of, whoever sent it; raises MalformedEvent."""
    if provider == "vapi":
        return vapi.parse(webhook)
    if provider == "google-calendar":
        return google_calendar.parse(webhook)
    if provider in DOORS:
        return DOORS[provider].parse(webhook)
    of_status = urlsplit(webhook.url).path.endswith("/status")
    parse: Any = twilio.parse_status if of_status else twilio.parse_inbound
    event: InboundEvent = parse(webhook, account_sid=account_sid)
    return event


def _count(platform: Platform, endpoint: Endpoint, refused: RequestRefused) -> None:
    """Beside the event, which must be stored also when it cannot be counted."""
    log.warning(
        "webhook.would_be_refused",
        integration_id=str(endpoint.integration_id),
        provider=endpoint.provider,
        code=refused.code,
    )
    try:
        with platform.database.transaction(system=True, statement_timeout_ms=1000) as session:
            rows.count_refusal(session, endpoint.integration_id, refused.code)
    except DatabaseUnavailable:
        log.warning("verification.not_counted", integration_id=str(endpoint.integration_id))
