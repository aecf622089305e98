"""Who is who: endpoint tokens, organizations and their integrations, cached per process.

Owns the caches that requests live on. An entry is refreshed after a few seconds; while the database
is away the last known one is used, however old, because a caller must still be answered.
"""

from __future__ import annotations

import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Generic, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

from app.database import Database
from app.errors import ConfigurationError, DatabaseUnavailable, NotFound, UnknownEndpoint
from app.integrations.twilio import TwilioCredentials
from app.models.deliveries import UNOWNED_ORG_ID
from app.models.integrations import (
    Integration,
    find_by_token,
    find_for_provider,
    find_platform_integration,
    list_integrations,
)
from app.models.organizations import Organization, find_organization, list_organizations
from app.models.routing import Key, find_owners, keys_of, list_keys
from app.services.credentials import Credentials, Vault
from app.services.wording import Wording

FRESH_SECONDS = 5.0
MOST_ENTRIES = 20_000
LOOK_UP_MS = 2000  # a request waits for it
LONGEST_TOKEN = 64
_TOKEN = re.compile(rf"[A-Za-z0-9_-]{{1,{LONGEST_TOKEN}}}")

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


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

    @property
    def wording(self) -> Wording:
        """How it speaks to its customers."""
        return Wording(self.language, ZoneInfo(self.timezone), self.name, self.templates)


class Directory:
    """Looks things up, cached."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database = database
        self._vault = vault
        self._endpoints: StaleIfError[str, Endpoint | None] = StaleIfError(self._read_endpoint)
        self._businesses: StaleIfError[UUID, Business | None] = StaleIfError(self._read_business)
        self._providers: StaleIfError[tuple[UUID, str], Endpoint | None] = StaleIfError(self._read_provider)
        self._owners: StaleIfError[tuple[Key, ...], frozenset[UUID] | None] = StaleIfError(self._read_owners)
        self._warm_keys: dict[Key, UUID] = {}

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
        when the database goes away. Raises DatabaseUnavailable."""
        with self._database.transaction(system=True) as session:
            organizations = list_organizations(session)[:MOST_ENTRIES]
            integrations = list_integrations(session)[:MOST_ENTRIES]
            self._warm_keys = dict(list_keys(session, limit=MOST_ENTRIES))
            for org in organizations:
                self._businesses.learn(org.id, _as_business(org))
        for row in integrations:  # the oldest first, so that an organization's newest of a provider stays
            if row.disabled_at is None:
                try:
                    endpoint = self.opened(row)
                except ConfigurationError:
                    continue  # sealed with a key that is gone: `readiness` says so, and whoever needs it hears it
                self._endpoints.learn(row.token, endpoint)
                if row.org_id is not None:
                    self._providers.learn((row.org_id, row.provider), endpoint)

    def forget(self) -> None:
        """Drop everything cached, after a change made in this process."""
        for cache in (self._endpoints, self._businesses, self._providers, self._owners):
            cache.clear()

    def opened(self, row: Integration) -> Endpoint:
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
        )

    def _read_endpoint(self, token: str) -> Endpoint | None:
        with self._database.transaction(system=True, statement_timeout_ms=LOOK_UP_MS) as session:
            row = find_by_token(session, token)
        return self.opened(row) if row else None

    def _read_provider(self, key: tuple[UUID, str]) -> Endpoint | None:
        org_id, provider = key
        with self._database.transaction(org_id, statement_timeout_ms=LOOK_UP_MS) as session:
            row = find_for_provider(session, org_id, provider)
        return self.opened(row) if row else self._read_platform(org_id, provider)

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
            row = find_organization(session, org_id)
            return _as_business(row) if row else None


def _as_business(row: Organization) -> Business:
    return Business(**{name: getattr(row, name) for name in Business.__slots__})


class StaleIfError(Generic[K, V]):
    """A bounded cache over one look-up: fresh for seconds, stale for ever while the look-up fails.

    What does not exist is not cached, so that a new integration works at once.
    """

    def __init__(self, read: Callable[[K], V], *, fresh_seconds: float = FRESH_SECONDS) -> None:
        self._read = read
        self._fresh_seconds = fresh_seconds
        self._entries: OrderedDict[K, tuple[float, V]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: K) -> V:
        """The value; raises DatabaseUnavailable only when it was never known."""
        entry = self._entries.get(key)
        if entry and self._is_fresh(entry):
            return entry[1]
        try:
            value = self._read(key)
        except DatabaseUnavailable:
            if entry is None:
                raise
            return entry[1]
        if value is None:
            with self._lock:
                self._entries.pop(key, None)
            return value
        self.learn(key, value)
        return value

    def fresh(self, key: K) -> V | None:
        """The value, if it is known and need not be looked up again."""
        entry = self._entries.get(key)
        return entry[1] if entry and self._is_fresh(entry) else None

    def _is_fresh(self, entry: tuple[float, V]) -> bool:
        return time.monotonic() - entry[0] < self._fresh_seconds

    def learn(self, key: K, value: V) -> None:
        """Keep what was just read."""
        with self._lock:
            self._entries[key] = (time.monotonic(), value)
            self._entries.move_to_end(key)
            while len(self._entries) > MOST_ENTRIES:
                self._entries.popitem(last=False)

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._entries.clear()
