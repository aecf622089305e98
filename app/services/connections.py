"""Connections of organizations to providers, as an operator sets them up.

Owns the making of endpoint tokens and the merging of credentials, which go in and never come out
again: what is shown is which keys are set.
"""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pydantic import AliasChoices, BaseModel
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.errors import ConfigurationError, InvalidInput, NotFound
from app.integrations.doors import DOORS
from app.models import Integration
from app.models.attempts import CREDENTIALS, credentials_of, list_waits, wake_waiting
from app.models.deliveries import UNOWNED_ORG_ID
from app.models.integrations import list_integrations
from app.models.quarantine import count_kept, forget_refusals, list_refusals
from app.services import audit, organizations
from app.services.credentials import PROVIDERS, parse_credentials
from app.services.directory import FRESH_SECONDS
from app.services.readable import fields, plain
from app.services.routing import PLATFORM_PROVIDERS
from app.services.verification import MODES

if TYPE_CHECKING:
    from app.services.platform import Platform

TOKEN_BYTES = 24
LONGEST_OVERLAP = timedelta(days=30)
PROVIDER_NAMES = tuple(PROVIDERS)
FRONT_DOORS = tuple(DOORS)
KEYS_OF = {name: tuple(credentials.model_fields) for name, credentials in PROVIDERS.items()}


def add(platform: Platform, org_id: UUID | None, provider: str, given: dict[str, str], *, actor: str) -> dict[str, Any]:
    """Connect an organization: ``id``, ``token`` and ``webhook_url`` (for Twilio ``status_url`` too).

    Without an organization it is the platform's, for those of all organizations that have none of their own.
    ``given`` is the provider's credentials. Raises InvalidInput naming each key that is wrong, NotFound.
    """
    sealed = platform.vault.seal(parse_credentials(provider, given))
    token = secrets.token_urlsafe(TOKEN_BYTES)
    with platform.database.transaction(system=True) as session:
        if org_id is not None:
            organizations.get(session, org_id)
        elif provider not in PLATFORM_PROVIDERS:
            raise InvalidInput(f"only {' and '.join(PLATFORM_PROVIDERS)} can serve many organizations")
        row = Integration(org_id=org_id, provider=provider, token=token, credentials=sealed)
        session.add(row)
        session.flush()
        _note(session, row, "integration.add", actor=actor, keys=sorted(given))
        integration_id = row.id
    platform.directory.forget()
    return {"id": str(integration_id), "token": token, **_urls(platform, provider, token)}


def change(platform: Platform, integration_id: UUID, given: dict[str, str], *, actor: str) -> dict[str, Any]:
    """Set some of the credentials and keep the others; an empty value takes a key away.

    Other processes follow within five seconds. Raises InvalidInput, NotFound.
    """
    with platform.database.transaction(system=True) as session:
        row = _get(session, integration_id)
        merged = _merge(platform.vault.open(row.provider, row.credentials), given)
        row.credentials = platform.vault.seal(parse_credentials(row.provider, merged))
        _note(session, row, "integration.set", actor=actor, keys=sorted(given))
        shown = _shown(platform, row)
        _wake(session, row)
        forget_refusals(session, row.id)
    platform.directory.forget()
    return shown


def rotate(
    platform: Platform, integration_id: UUID, given: dict[str, str], *, overlap: timedelta, actor: str
) -> dict[str, Any]:
    """Set new secrets and let the old ones pass beside them until ``overlap`` is over; 0 ends an overlap at once.

    What is sent uses the new ones from now on. Raises NotFound, and InvalidInput while an earlier overlap lasts.
    With nothing ``given`` an overlap can only be ended.
    """
    if overlap and not given:
        raise InvalidInput("no new secret is given", advice="Set one, or give an overlap of 0 to end an earlier one.")
    if not timedelta() <= overlap <= LONGEST_OVERLAP:
        raise InvalidInput(f"overlap: 0 to {LONGEST_OVERLAP.days * 24} hours")
    with platform.database.transaction(system=True) as session:
        row = _get(session, integration_id)
        now = session.execute(select(func.now())).scalar_one()
        if overlap and row.previous_until is not None and row.previous_until > now:
            raise InvalidInput(
                "an earlier rotation's overlap still lasts, and a third secret would end it; see `integration list`",
                advice="Give an overlap of 0 to end it now.",
            )
        merged = _merge(platform.vault.open(row.provider, row.credentials), given)
        fresh = platform.vault.seal(parse_credentials(row.provider, merged))
        row.previous_credentials, row.previous_until = (row.credentials, now + overlap) if overlap else (None, None)
        row.credentials = fresh
        _note(session, row, "integration.rotate", actor=actor, keys=sorted(given), hours=overlap / timedelta(hours=1))
        session.flush()
        shown = _shown(platform, row)
        _wake(session, row)
        forget_refusals(session, row.id)
    platform.directory.forget()
    return shown


def set_verification(platform: Platform, integration_id: UUID, mode: str, *, actor: str) -> dict[str, Any]:
    """What is done when a webhook's proof does not hold: one of ``MODES``; its counts begin anew. Raises NotFound."""
    if mode not in MODES:
        raise InvalidInput(f"mode: one of {', '.join(MODES)}")
    with platform.database.transaction(system=True) as session:
        row = _get(session, integration_id)
        if row.verification != mode:
            _note(session, row, "integration.set-verification", actor=actor, mode=mode, was=row.verification)
            row.verification = mode
            forget_refusals(session, row.id)
        session.flush()
        shown = _shown(platform, row)
    platform.directory.forget()
    return shown


def disable(platform: Platform, integration_id: UUID, *, actor: str) -> dict[str, Any]:
    """Stop taking webhooks and sending through this connection. Safe to repeat. Raises NotFound."""
    with platform.database.transaction(system=True) as session:
        row = _get(session, integration_id)
        if row.disabled_at is None:
            row.disabled_at = session.scalar(select(func.now()))
            _note(session, row, "integration.disable", actor=actor)
        shown = _shown(platform, row)
    platform.directory.forget()
    return shown


def list_all(platform: Platform, org_id: UUID | None = None) -> list[dict[str, Any]]:
    """All connections, of one organization when it is given (then raises NotFound); no secret in any."""
    with platform.database.transaction(system=True) as session:
        if org_id is not None:
            organizations.get(session, org_id)
        refused: dict[UUID, dict[str, int]] = {}
        for one in list_refusals(session):
            refused.setdefault(one.integration_id, {})[one.code] = one.times
        kept = count_kept(session)
        return [
            {**_shown(platform, row), "would_refuse": refused.get(row.id, {}), "quarantined": kept.get(row.id, 0)}
            for row in list_integrations(session, org_id)
        ]


def _wake(session: Session, row: Integration) -> None:
    """What the old secrets were refused for is done now; not before every process knows the new ones."""
    waits = [credentials_of(row.org_id)] if row.org_id else list_waits(session, CREDENTIALS)
    for waiting_on in sorted(waits):
        wake_waiting(session, waiting_on, after_seconds=FRESH_SECONDS)


def _get(session: Session, integration_id: UUID) -> Integration:
    row = session.get(Integration, integration_id, with_for_update=True)
    if row is None:
        raise NotFound("no integration has this id")
    return row


def _merge(known: BaseModel, given: dict[str, str]) -> dict[str, Any]:
    """What was set before and what is given now, which wins under whichever of its names it comes."""
    merged = known.model_dump(exclude_unset=True)
    for name, field in type(known).model_fields.items():
        aliases = field.validation_alias
        names = {name, *(map(str, aliases.choices) if isinstance(aliases, AliasChoices) else ())}
        if names & given.keys():
            merged.pop(name, None)
    return {**merged, **{key: value for key, value in given.items() if value}}


def _note(session: Session, row: Integration, action: str, *, actor: str, **details: Any) -> None:
    org_id = row.org_id or UNOWNED_ORG_ID
    audit.note(session, org_id, actor=actor, action=action, subject=str(row.id), provider=row.provider, **details)


def _shown(platform: Platform, row: Integration) -> dict[str, Any]:
    return {
        **fields(row, ("id", "org_id", "provider", "verification", "created_at", "disabled_at")),
        "old_secret_until": plain(row.previous_until),
        "keys": _keys(platform, row),
        "token": row.token,
        **_urls(platform, row.provider, row.token),
    }


def _keys(platform: Platform, row: Integration) -> list[str] | None:
    """Which keys are set; None when the credentials were sealed with a key that is no longer configured."""
    try:
        return sorted(platform.vault.open(row.provider, row.credentials).model_fields_set)
    except ConfigurationError:
        return None


def _urls(platform: Platform, provider: str, token: str) -> dict[str, str]:
    """Where the provider is to post."""
    base = f"{platform.settings.public_base_url}/webhooks/{provider}/{token}"
    urls = {"webhook_url": base}
    if provider == "twilio":
        urls["status_url"] = f"{base}/status"
    return urls
