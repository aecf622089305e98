"""Where an organization wants its events, as an operator sets it.

Owns the signing secret's life: made with the first URL, shown then and when it is rotated, never again. Sends nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import UUID

from sqlalchemy.orm import Session

from app.errors import InvalidInput, NotFound
from app.integrations.webhook_scheme import new_secret
from app.models.forward_targets import BY_HAND, ForwardTarget, find_target, now_of, overlap_of
from app.services import audit, organizations
from app.services.readable import fields

if TYPE_CHECKING:
    from app.services.platform import Platform

LONGEST_OVERLAP_HOURS = 720


def set_url(platform: Platform, org_id: UUID, url: str, *, actor: str) -> dict[str, Any]:
    """Forward the organization's events to ``url`` from now on; ``secret`` is there only the first time.

    The URL is checked as it will be at each send. Raises InvalidInput, TargetNotAllowed, NotFound, and
    ProviderUnavailable for a name that leads nowhere.
    """
    target = platform.forwarder.check(url)
    if target.host.casefold() == urlsplit(platform.settings.public_base_url).hostname:
        raise InvalidInput("url: this is where events come in; what is forwarded would come in again")
    with platform.database.transaction(system=True) as session:
        organizations.get(session, org_id)
        row, secret = find_target(session, org_id, lock=True), None
        if row is None:
            secret = new_secret()
            row = ForwardTarget(org_id=org_id, url=url, secret=platform.vault.seal_bytes(secret.encode()))
            session.add(row)
        row.url, row.off_since, row.off_reason = url, None, None
        audit.note(session, org_id, actor=actor, action="forward.set", subject=str(org_id))
        session.flush()
        return {**_shown(row), **({"secret": secret} if secret else {})}


def show(platform: Platform, org_id: UUID) -> dict[str, Any]:
    """Where to, since when, whether it is off and why; never the secret. Raises NotFound."""
    with platform.database.transaction(system=True) as session:
        return _shown(_get(session, org_id))


def rotate(platform: Platform, org_id: UUID, *, overlap_hours: float, actor: str) -> dict[str, Any]:
    """A new ``secret``; until the overlap is over each event bears a signature of the old one too. Raises NotFound."""
    if not 0 <= overlap_hours <= LONGEST_OVERLAP_HOURS:
        raise InvalidInput(f"overlap: 0 to {LONGEST_OVERLAP_HOURS} hours")
    secret = new_secret()
    with platform.database.transaction(system=True) as session:
        row = _get(session, org_id)
        if overlap_hours and row.previous_until is not None and row.previous_until > now_of(session):
            raise InvalidInput(
                "an earlier rotation's overlap still lasts, and a third secret would end it",
                advice="Give an overlap of 0 to end it now.",
            )
        row.previous_secret = row.secret if overlap_hours else None
        row.previous_until = overlap_of(session, overlap_hours) if overlap_hours else None
        row.secret = platform.vault.seal_bytes(secret.encode())
        audit.note(session, org_id, actor=actor, action="forward.rotate", subject=str(org_id), hours=overlap_hours)
        session.flush()
        return {**_shown(row), "secret": secret}


def switch_off(platform: Platform, org_id: UUID, *, actor: str) -> dict[str, Any]:
    """Forward nothing any more; URL and secret are kept. Safe to repeat. Raises NotFound."""
    with platform.database.transaction(system=True) as session:
        row = _get(session, org_id)
        if row.off_reason != BY_HAND:
            row.off_since, row.off_reason = row.off_since or now_of(session), BY_HAND
            audit.note(session, org_id, actor=actor, action="forward.off", subject=str(org_id))
            session.flush()
        return _shown(row)


def _get(session: Session, org_id: UUID) -> ForwardTarget:
    organizations.get(session, org_id)
    row = find_target(session, org_id, lock=True)
    if row is None:
        raise NotFound("the organization's events are not forwarded; `forward set ORG URL` begins it")
    return row


def _shown(row: ForwardTarget) -> dict[str, Any]:
    return fields(row, ("org_id", "url", "created_at", "off_since", "off_reason", "old_secret_until=previous_until"))
