"""Who is who: endpoint tokens, organizations and their integrations, cached per process.

Owns the caches that requests live on. An entry is believed for a few seconds, and as long as one look at the versions
of all rows (``versions.py``), every two seconds, says that it has not changed; while the database
is away the last known one is used, however old, because a caller must still be answered.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

from app.database import Database
from app.database.at_once import AtOnce
from app.errors import ConfigurationError, DatabaseUnavailable, NotFound, UnknownEndpoint
from app.integrations.twilio import TwilioCredentials
from app.models import integrations, organizations, versions
from app.models.deliveries import UNOWNED_ORG_ID
from app.models.integrations import Integration, find_for_provider, find_platform_integration
from app.models.organizations import Organization
from app.models.routing import Key, find_owners, keys_of, list_keys
from app.models.versions import Door
from app.services.credentials import Credentials, Vault
from app.services.stale_if_error import MOST_ENTRIES, StaleIfError
from app.services.wording import Wording

FRESH_SECONDS = 5.0
WARM_SECONDS = 60.0  # how often it gets to know everybody, for the time when the database is away
KEEP_SECONDS = 2.0  # what is known is confirmed that often, well before it is no longer fresh
PIECE = 500
LOOK_UP_MS = 2000  # a request waits for it
LONGEST_TOKEN = 64
_TOKEN = re.compile(rf"[A-Za-z0-9_-]{{1,{LONGEST_TOKEN}}}")

K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An integration as a request needs it.

    One of the platform's (``is_platform``) is nobody's until its event is routed. ``previous`` passes too until
    ``previous_until``.
    """

    integration_id: UUID
    org_id: UUID
    provider: str
    token: str
    credentials: Credentials
    settings: dict[str, Any]
    is_platform: bool = False
    verification: str = "enforce"
    previous: Credentials | None = None
    previous_until: datetime | None = None
    version: str = field(default="", compare=False)  # of its row


@dataclass(frozen=True, slots=True)
class Business:
    """An organization as its services need it, detached from any session."""

    id: UUID
    name: str
    timezone: str
    phone_number: str | None
    transfer_number: str | None
    assistant_id: str | None
    opening_hours: dict[str, Any]
    slot_minutes: int
    suspended_at: datetime | None
    keep_words_days: int
    consent_sentence: str | None
    language: str
    templates: dict[str, Any]
    reminders: bool
    quiet_hours: list[str]
    notify_number: str | None
    notify_about: list[str]
    sms_instead: bool
    version: str = field(default="", compare=False)  # of its row

    @property
    def wording(self) -> Wording:
        """How it speaks to its customers."""
        return Wording(self.language, ZoneInfo(self.timezone), self.name, self.templates)


class Directory:
    """Looks things up, cached."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database = database
        self._vault = vault
        self._endpoints: StaleIfError[str, Endpoint | None] = StaleIfError(
            self._read_endpoint, fresh_seconds=FRESH_SECONDS
        )
        self._businesses: StaleIfError[UUID, Business | None] = StaleIfError(
            self._read_business, fresh_seconds=FRESH_SECONDS
        )
        self._providers: StaleIfError[tuple[UUID, str], Endpoint | None] = StaleIfError(
            self._read_provider, fresh_seconds=FRESH_SECONDS
        )
        self._owners: StaleIfError[tuple[Key, ...], frozenset[UUID] | None] = StaleIfError(
            self._read_owners, fresh_seconds=FRESH_SECONDS
        )
        self._warm_keys: dict[Key, UUID] = {}
        self._kept_fresh_at = self._warmed_at = -math.inf
        self._mark, self._mark_since = "", math.inf

    def endpoint(self, provider: str, token: str) -> Endpoint:
        """The integration behind a webhook's token; raises UnknownEndpoint, DatabaseUnavailable."""
        found = self._endpoints.get(token) if _TOKEN.fullmatch(token) else None
        if found is None or found.provider != provider:
            raise UnknownEndpoint
        return found

    def known_endpoint(self, provider: str, token: str) -> Endpoint | None:
        """The same, if this process has looked it up in the last seconds; asks nobody."""
        found = self._endpoints.fresh(token)
        return found if found is not None and found.provider == provider else None

    def business(self, org_id: UUID) -> Business:
        """The organization; raises NotFound, DatabaseUnavailable."""
        found = self.find_business(org_id)
        if found is None:
            raise NotFound("no such organization")
        return found

    def find_business(self, org_id: UUID) -> Business | None:
        """The organization, if there is one; raises DatabaseUnavailable."""
        return self._businesses.get(org_id)

    def owners(self, keys: list[Key]) -> frozenset[UUID]:
        """The organizations that any of the keys names; raises DatabaseUnavailable when it was never known."""
        try:
            return self._owners.get(tuple(sorted(keys))) or frozenset()
        except DatabaseUnavailable:
            known = frozenset(self._warm_keys[key] for key in keys if key in self._warm_keys)
            if not known:
                raise
            return known

    def integration(self, org_id: UUID, provider: str) -> Endpoint:
        """The organization's integration with a provider, or the platform's; raises NotFound when there is none."""
        found = self._providers.get((org_id, provider))
        if found is None:
            raise NotFound(f"the organization has no {provider} integration", code="not_connected")
        return found

    def warm(self) -> None:
        """Get to know everybody, so that a caller is answered also by a process that has never met the organization
        when the database goes away. Reads and opens only what is not known yet. Raises DatabaseUnavailable."""
        asks, now = self._database.at_once(system=True), time.monotonic()
        mark = versions.mark(asks)
        everybody, doors = self._confirm(asks, at=now)
        with self._database.transaction(system=True) as session:
            self._warm_keys = dict(list_keys(session, limit=MOST_ENTRIES))
        for org_ids in _in_pieces(everybody):
            began = time.monotonic()
            with self._database.transaction(system=True) as session:
                for org, version in organizations.find_versioned(session, org_ids):
                    self._businesses.learn(org.id, _as_business(org, version), at=began)
        for tokens in _in_pieces([door.token for door in doors if self._endpoints.fresh(door.token) is None]):
            began = time.monotonic()
            with self._database.transaction(system=True) as session:
                rows = integrations.find_versioned(session, tokens)
            for row, version in rows:
                try:
                    self._endpoints.learn(row.token, self.opened(row, version), at=began)
                except ConfigurationError:
                    continue  # sealed with a key that is gone: `readiness` says so, and whoever needs it hears it
        for door in doors:  # the oldest first, so that an organization's newest of a provider stays
            endpoint = self._endpoints.fresh(door.token)
            if door.org_id is not None and endpoint is not None:
                self._providers.learn((door.org_id, door.provider), endpoint, at=now)
        self._mark, self._mark_since, self._warmed_at = mark, now, now

    def keep_fresh(self) -> None:
        """See, by one look at all of them, whether those who are known are so still: they need not be read one by one.

        At most every two seconds, however often it is called: by whoever has a loop. The first time, and every minute,
        it gets to know everybody. Raises DatabaseUnavailable.
        """
        now = time.monotonic()
        if now - self._kept_fresh_at < KEEP_SECONDS:
            return
        self._kept_fresh_at = now
        if now - self._warmed_at >= WARM_SECONDS:
            self.warm()
            return
        asks = self._database.at_once(system=True)
        mark = versions.mark(asks)
        if mark == self._mark:
            for cache in (self._endpoints, self._businesses, self._providers):
                cache.extend(since=self._mark_since, at=now)
            return
        self._confirm(asks, at=now)
        self._mark, self._mark_since = mark, now

    def _confirm(self, asks: AtOnce, *, at: float) -> tuple[list[UUID], list[Door]]:
        """By the versions that there are now; the organizations that are not known, and all doors."""
        doors = versions.doors(asks, limit=MOST_ENTRIES)
        everybody = versions.organizations(asks, limit=MOST_ENTRIES)
        self._endpoints.confirm({door.token: door.version for door in doors}, at=at)
        # The oldest are first, so that an organization's newest of a provider stays.
        newest = {(door.org_id, door.provider): door.version for door in doors if door.org_id is not None}
        self._providers.confirm(newest, at=at)
        return self._businesses.confirm(everybody, at=at), doors

    def forget(self) -> None:
        """Drop everything cached, after a change made in this process."""
        for cache in (self._endpoints, self._businesses, self._providers, self._owners):
            cache.clear()

    def opened(self, row: Integration, version: str = "") -> Endpoint:
        """The integration as requests use it, past the caches; raises ConfigurationError when no key opens it."""
        previous = row.previous_credentials
        return Endpoint(
            row.id,
            row.org_id or UNOWNED_ORG_ID,
            row.provider,
            row.token,
            self._vault.open(row.provider, row.credentials),
            row.settings,
            is_platform=row.org_id is None,
            verification=row.verification,
            previous=self._vault.open(row.provider, previous) if previous else None,
            previous_until=row.previous_until,
            version=version,
        )

    def _read_endpoint(self, token: str) -> Endpoint | None:
        with self._database.transaction(system=True, statement_timeout_ms=LOOK_UP_MS) as session:
            rows = integrations.find_versioned(session, [token])
        return self.opened(*rows[0]) if rows else None

    def _read_provider(self, key: tuple[UUID, str]) -> Endpoint | None:
        org_id, provider = key
        with self._database.transaction(org_id, statement_timeout_ms=LOOK_UP_MS) as session:
            found = find_for_provider(session, org_id, provider)
        return self.opened(*found) if found else self._read_platform(org_id, provider)

    def _read_platform(self, org_id: UUID, provider: str) -> Endpoint | None:
        """The platform's account as this organization uses it: from its own sender. None without either."""
        with self._database.transaction(system=True, statement_timeout_ms=LOOK_UP_MS) as session:
            row = find_platform_integration(session, provider)
            keys = keys_of(session, org_id) if row else {}
        if row is None:
            return None
        endpoint = replace(self.opened(row), org_id=org_id)
        if not isinstance(endpoint.credentials, TwilioCredentials):
            return endpoint
        number, service = keys.get("phone_number"), keys.get("twilio_messaging_service")
        if not (number or service or keys.get("whatsapp_sender")):
            return None
        as_theirs = endpoint.credentials.speaking_for(
            account_sid=keys.get("twilio_account"),
            service_sid=service,
            number=number,
            whatsapp=keys.get("whatsapp_sender"),
        )
        return replace(endpoint, credentials=as_theirs)

    def _read_owners(self, keys: tuple[Key, ...]) -> frozenset[UUID] | None:
        with self._database.transaction(system=True, statement_timeout_ms=LOOK_UP_MS) as session:
            return frozenset(find_owners(session, keys)) or None

    def _read_business(self, org_id: UUID) -> Business | None:
        with self._database.transaction(org_id, statement_timeout_ms=LOOK_UP_MS) as session:
            rows = organizations.find_versioned(session, [org_id])
            return _as_business(*rows[0]) if rows else None


def _as_business(row: Organization, version: str) -> Business:
    columns = [name for name in Business.__slots__ if name != "version"]
    return Business(**{name: getattr(row, name) for name in columns}, version=version)


def _in_pieces(keys: Collection[K]) -> Iterator[list[K]]:
    """A few hundred at a time: no transaction and no thread is held up for long."""
    there = list(keys)
    return (there[first : first + PIECE] for first in range(0, len(there), PIECE))
