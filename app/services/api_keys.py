"""API keys: made, rotated, revoked, and recognised when a program shows one.

Owns what a key is (a prefix, 24 random bytes, and of it all only a hash is kept), what it may do, and
for how long. A key is shown once, when it is made. Must not know how a request carries it.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from sqlalchemy.orm import Session

from app.database import Database
from app.errors import InvalidInput, KeyRefused, NotFound
from app.models import ApiKey
from app.models.operations import has_action
from app.models.organizations import find_key, find_organization, list_keys, lock_keys, note_key_use
from app.services import audit
from app.services.readable import fields
from app.services.stale_if_error import StaleIfError

if TYPE_CHECKING:
    from app.services.platform import Platform

READ, WRITE = "read", "write"
SCOPES = (READ, WRITE)

PREFIX = "vd_"
RANDOM_BYTES = 24  # 32 characters of url-safe base64
SHOWN_CHARACTERS = 11
LONGEST_OVERLAP = timedelta(days=90)
LONGEST_LABEL = 100

ROTATED = "key.rotate"
FRESH_SECONDS = 3.0  # a revoked key is refused everywhere within five
LAST_USE_EVERY = timedelta(minutes=1)
LOOK_UP_TIMEOUT_MS = 2_000
_SHAPE = re.compile(rf"{PREFIX}[A-Za-z0-9_-]{{32}}")
_LISTED = (
    "org_id",
    "prefix",
    "label",
    "scopes",
    "created_at",
    "expires_at",
    "last_used_at",
    "revoked_at",
)


class Caller(NamedTuple):
    """Who shows a valid key: its organization, what it may do, and the organization's own quota, if it has one."""

    org_id: UUID
    prefix: str
    scopes: frozenset[str]
    expires_at: datetime | None
    quota_per_hour: int | None


class ApiKeys:
    """Recognises keys, cached for seconds, because every request of the API shows one."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._callers: StaleIfError[str, Caller | None] = StaleIfError(self._read, fresh_seconds=FRESH_SECONDS)

    def caller(self, key: str) -> Caller:
        """Who shows this key; raises KeyRefused for one that is unknown, revoked or expired, DatabaseUnavailable."""
        found = self._callers.get(hash_of(key)) if _SHAPE.fullmatch(key) else None
        if found is None or (found.expires_at is not None and found.expires_at <= datetime.now(UTC)):
            raise KeyRefused
        return found

    def forget(self) -> None:
        """Drop what is cached, after a change made in this process."""
        self._callers.clear()

    def _read(self, key_hash: str) -> Caller | None:
        with self._database.transaction(system=True, statement_timeout_ms=LOOK_UP_TIMEOUT_MS) as session:
            found = find_key(session, key_hash)
            if found is None or found[0].revoked_at is not None:
                return None
            key, quota = found
            if key.last_used_at is None or key.last_used_at < datetime.now(UTC) - LAST_USE_EVERY:
                note_key_use(session, key.id, at_most_every=LAST_USE_EVERY)
            return Caller(key.org_id, key.prefix, frozenset(key.scopes), key.expires_at, quota)


def create(
    platform: Platform,
    org_id: UUID,
    *,
    scopes: list[str],
    label: str | None = None,
    lasts: timedelta | None = None,
    actor: str,
) -> dict[str, Any]:
    """Make a key: what ``list_all`` shows of it, and ``api_key``, which is shown only here.

    ``lasts`` is how long it is valid (for ever without it). Raises InvalidInput, NotFound.
    """
    wanted = _check_scopes(scopes)
    if label is not None and len(label) > LONGEST_LABEL:
        raise InvalidInput(f"label: at most {LONGEST_LABEL} characters")
    with platform.database.transaction(system=True) as session:
        if find_organization(session, org_id) is None:
            raise NotFound("no organization has this id")
        expires_at = datetime.now(UTC) + _positive(lasts) if lasts is not None else None
        key, row = add(session, org_id, scopes=wanted, label=label or None, expires_at=expires_at)
        audit.note(session, org_id, actor=actor, action="key.create", subject=row.prefix, scopes=wanted)
        return {**fields(row, _LISTED), "api_key": key}


def list_all(platform: Platform, org_id: UUID | None = None) -> list[dict[str, Any]]:
    """All keys, or one organization's, the oldest first; never more of one than its first characters."""
    with platform.database.transaction(system=True) as session:
        return [fields(row, _LISTED) for row in list_keys(session, org_id=org_id)]


def rotate(platform: Platform, prefix: str, *, overlap: timedelta, actor: str) -> dict[str, Any]:
    """Make a key that may do the same, and let the old one end after the overlap.

    Returns the new key as ``create`` does, with ``replaces`` (a prefix) and ``old_expires_at``. An earlier
    end of the old key stays. Raises InvalidInput, NotFound.
    """
    if not timedelta(0) <= overlap <= LONGEST_OVERLAP:
        raise InvalidInput(f"overlap: 0 to {LONGEST_OVERLAP.days * 24} hours")
    with platform.database.transaction(system=True) as session:
        old = _lock_usable(session, prefix)
        if has_action(session, old.org_id, action=ROTATED, subject=old.prefix):
            raise InvalidInput("the key has been rotated already; rotate the one that replaced it")
        ends = datetime.now(UTC) + overlap
        lasts = old.expires_at - old.created_at if old.expires_at else None
        new, row = add(
            session,
            old.org_id,
            scopes=list(old.scopes),
            label=old.label,
            expires_at=datetime.now(UTC) + lasts if lasts else None,
        )
        old.expires_at = min(old.expires_at or ends, ends)
        audit.note(session, old.org_id, actor=actor, action=ROTATED, subject=old.prefix, new=row.prefix)
        shown = {
            **fields(row, _LISTED),
            "api_key": new,
            "replaces": old.prefix,
            **fields(old, ("old_expires_at=expires_at",)),
        }
    platform.api_keys.forget()
    return shown


def revoke(platform: Platform, prefix: str, *, actor: str) -> dict[str, Any]:
    """End a key now; every process refuses it within five seconds. Safe to repeat. Raises InvalidInput, NotFound."""
    with platform.database.transaction(system=True) as session:
        row = _lock(session, prefix)
        if row.revoked_at is None:
            row.revoked_at = datetime.now(UTC)
            audit.note(session, row.org_id, actor=actor, action="key.revoke", subject=row.prefix)
        shown = fields(row, _LISTED)
    platform.api_keys.forget()
    return shown


def add(
    session: Session, org_id: UUID, *, scopes: list[str], label: str | None = None, expires_at: datetime | None = None
) -> tuple[str, ApiKey]:
    """A new key and its row, in the caller's transaction."""
    key = PREFIX + secrets.token_urlsafe(RANDOM_BYTES)
    row = ApiKey(
        org_id=org_id,
        prefix=key[:SHOWN_CHARACTERS],
        key_hash=hash_of(key),
        label=label,
        scopes=scopes,
        expires_at=expires_at,
    )
    session.add(row)
    session.flush()
    return key, row


def hash_of(key: str) -> str:
    """How a key is kept. It is random, so that a plain hash is as good as a slow one."""
    return hashlib.sha256(key.encode()).hexdigest()


def _lock(session: Session, prefix: str) -> ApiKey:
    """The key; a prefix, or any more of the key than that, names it."""
    found = lock_keys(session, prefix[:SHOWN_CHARACTERS])
    if not found:
        raise NotFound("no key begins so; `key list` shows the prefixes")
    if len(found) > 1:
        raise InvalidInput("more than one key begins so")
    return found[0]


def _lock_usable(session: Session, prefix: str) -> ApiKey:
    row = _lock(session, prefix)
    if row.revoked_at is not None or (row.expires_at is not None and row.expires_at <= datetime.now(UTC)):
        raise InvalidInput("the key has ended already; make a new one with `key create`")
    return row


def _check_scopes(scopes: list[str]) -> list[str]:
    if not scopes or not set(scopes) <= set(SCOPES):
        raise InvalidInput(f"scopes: one or more of {', '.join(SCOPES)}")
    return [scope for scope in SCOPES if scope in scopes]


def _positive(lasts: timedelta) -> timedelta:
    if lasts <= timedelta(0):
        raise InvalidInput("the key would have expired already")
    return lasts
