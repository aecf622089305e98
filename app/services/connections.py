"""Connections of organizations to providers, as an operator sets them up.

Owns the making of endpoint tokens and the merging of credentials, which go in and never come out
again: what is shown is which keys are set.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pydantic import AliasChoices, BaseModel
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.errors import ConfigurationError, NotFound
from app.models import Integration
from app.models.attempts import credentials_of, wake_waiting
from app.models.integrations import list_integrations
from app.services import audit, organizations
from app.services.credentials import PROVIDERS, parse_credentials
from app.services.directory import FRESH_SECONDS
from app.services.readable import fields

if TYPE_CHECKING:
    from app.services.platform import Platform

TOKEN_BYTES = 24
PROVIDER_NAMES = tuple(PROVIDERS)


def add(platform: Platform, org_id: UUID, provider: str, given: dict[str, str], *, actor: str) -> dict[str, Any]:
    """Connect an organization: ``id``, ``token`` and ``webhook_url`` (for Twilio ``status_url`` too).

    ``given`` is the provider's credentials. Raises InvalidInput naming each key that is wrong, NotFound.
    """
    sealed = platform.vault.seal(parse_credentials(provider, given))
    token = secrets.token_urlsafe(TOKEN_BYTES)
    with platform.database.transaction(system=True) as session:
        organizations.get(session, org_id)
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
        # What the old ones were refused for is done now; not before every process knows the new ones.
        wake_waiting(session, credentials_of(row.org_id), after_seconds=FRESH_SECONDS)
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
        return [_shown(platform, row) for row in list_integrations(session, org_id)]


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
    audit.note(session, row.org_id, actor=actor, action=action, subject=str(row.id), provider=row.provider, **details)


def _shown(platform: Platform, row: Integration) -> dict[str, Any]:
    return {
        **fields(row, ("id", "org_id", "provider", "created_at", "disabled_at")),
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
