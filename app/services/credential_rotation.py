"""Stored credentials under the first key of CREDENTIALS_KEYS, while everything runs.

Owns the order of a rotation: read, seal anew outside any transaction, replace only what is still as it was
read. Whoever sets an integration's keys meanwhile wins: what is set is sealed with the first key anyway.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cryptography.fernet import InvalidToken

from app.errors import ConfigurationError
from app.models.aliases import reseal_keys
from app.models.deliveries import UNOWNED_ORG_ID
from app.models.forward_targets import list_sealed_secrets, replace_secret
from app.models.integrations import list_previous, list_sealed, replace_previous, replace_sealed
from app.models.quarantine import list_kept, replace_sealed_request
from app.observability.logging import get_logger
from app.services import audit

if TYPE_CHECKING:
    from app.services.platform import Platform

PAGE = 200

log = get_logger(__name__)


def rotate(platform: Platform, *, actor: str) -> dict[str, Any]:
    """Seal every integration's credentials with the first key. Safe to repeat and to interrupt.

    Returns ``rotated``, ``already`` (sealed with it before), ``changed_meanwhile`` (somebody else has just
    set them), ``unreadable`` (ids that no key opens), and ``old_keys_needed``: False when all other
    keys can be taken out of CREDENTIALS_KEYS once every process runs with the new first one.
    """
    counts = {"rotated": 0, "already": 0, "changed_meanwhile": 0}
    unreadable: list[str] = []
    after = None
    while True:
        with platform.database.transaction(system=True) as session:
            page = list_sealed(session, after=after, limit=PAGE)
        if not page:
            break
        for integration_id, org_id, sealed in page:
            if platform.vault.is_newest(sealed):
                counts["already"] += 1
                continue
            try:
                fresh = platform.vault.reseal(sealed)
            except ConfigurationError:
                unreadable.append(str(integration_id))
                continue
            with platform.database.transaction(system=True) as session:
                if not replace_sealed(session, integration_id, old=sealed, new=fresh):
                    counts["changed_meanwhile"] += 1
                    continue
                audit.note(
                    session,
                    org_id or UNOWNED_ORG_ID,
                    actor=actor,
                    action="credentials.rotate",
                    subject=str(integration_id),
                )
            counts["rotated"] += 1
        after = page[-1][0]
    unreadable += _reseal_what_is_old(platform)
    platform.directory.forget()
    log.info("credentials.rotated", **counts, unreadable=len(unreadable))
    waiting = platform.spool.contents()  # of this host; what waits there goes into the database by itself
    needed = unreadable or counts["changed_meanwhile"] or waiting.lines or waiting.aside
    return {**counts, "unreadable": unreadable, "old_keys_needed": bool(needed)}


def _reseal_what_is_old(platform: Platform) -> list[str]:
    """Secrets that are being replaced, those of forwarding, and requests in quarantine; what no key opens, by id."""
    unreadable: list[str] = []
    with platform.database.transaction(system=True) as session:
        for integration_id, sealed in list_previous(session):
            try:
                replace_previous(session, integration_id, old=sealed, new=platform.vault.reseal(sealed))
            except ConfigurationError:
                unreadable.append(str(integration_id))
        for org_id, column, sealed in list_sealed_secrets(session):
            try:
                replace_secret(session, org_id, column, old=sealed, new=platform.vault.reseal(sealed))
            except ConfigurationError:
                unreadable.append(f"forward:{org_id}")
    try:
        with platform.database.transaction(system=True) as session:
            reseal_keys(session)
    except InvalidToken:
        unreadable.append("house_keys")
    after = 0
    while True:
        with platform.database.transaction(system=True) as session:
            page = list_kept(session, after=after, limit=PAGE)
            for row in page:
                try:
                    replace_sealed_request(session, row.id, sealed=platform.vault.reseal(row.sealed))
                except ConfigurationError:
                    unreadable.append(f"quarantined:{row.id}")
        if len(page) < PAGE:
            return unreadable
        after = page[-1].id
