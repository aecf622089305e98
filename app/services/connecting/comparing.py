"""What providers have against what they should have, connection by connection.

Owns which connections are looked at and what is said when a provider cannot be asked; what is compared is each
provider's own file's. Changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any
from uuid import UUID

from app.errors import ConfigurationError, CredentialsRefused, NotFound, VoicedeskError
from app.models.integrations import Integration, list_integrations
from app.models.organizations import list_organizations
from app.services.connecting import calendar, twilio, vapi
from app.services.connecting.differences import Connection, Difference
from app.services.directory import Business

if TYPE_CHECKING:
    from app.services.platform import Platform

COMPARISONS: dict[str, Callable[[Platform, Connection], Iterable[Difference]]] = {
    "vapi": vapi.compare,
    "twilio": twilio.compare,
    "google-calendar": calendar.compare,
}


COMPARED = tuple(COMPARISONS)


def compare(platform: Platform, integration_id: UUID) -> list[Difference]:
    """Where one connection's provider differs. Raises NotFound, ConfigurationError for credentials nobody can open."""
    found = [one for one in _connections(platform) if one.integration_id == integration_id]
    if not found:
        raise NotFound("no integration has this id, or it is disabled")
    return _compare(platform, found[0])


def compare_all(platform: Platform) -> list[Difference]:
    """Where any enabled connection's provider differs, the oldest connection first."""
    return [one for connection in _connections(platform) for one in _compare(platform, connection)]


def _compare(platform: Platform, connection: Connection) -> list[Difference]:
    try:
        return list(COMPARISONS.get(connection.provider, _nothing)(platform, connection))
    except VoicedeskError as error:
        business = connection.businesses[0] if connection.org_id and connection.businesses else None
        return [_unreachable(connection, error, business)]


def _nothing(_platform: Platform, _connection: Connection) -> Iterable[Difference]:
    """A provider of which nothing can be compared."""
    return ()


def _unreachable(connection: Connection, error: VoicedeskError, business: Business | None) -> Difference:
    fix = error.advice or "See the provider's status page, and ask again."
    if isinstance(error, CredentialsRefused):
        fix = f"integration set {connection.integration_id} --set key=value"
        if connection.provider == calendar.PROVIDER and connection.org_id:
            fix = f"integration connect google {connection.org_id}"
    return Difference(connection, "the provider's answer", str(error), "an answer", fix, business=business)


def _connections(platform: Platform) -> list[Connection]:
    with platform.database.transaction(system=True) as session:
        rows = [row for row in list_integrations(session) if row.disabled_at is None]
        org_ids = [org.id for org in list_organizations(session)]
    return [_opened(platform, row, _served(platform, row, rows, org_ids)) for row in rows]


def _served(platform: Platform, row: Integration, rows: list[Integration], org_ids: list[UUID]) -> tuple[Business, ...]:
    """The organization itself; of a platform's connection those that have none of their own with this provider."""
    with_own = {other.org_id for other in rows if other.provider == row.provider}
    served = [row.org_id] if row.org_id is not None else [one for one in org_ids if one not in with_own]
    return tuple(platform.directory.business(one) for one in served)


def _opened(platform: Platform, row: Integration, businesses: tuple[Business, ...]) -> Connection:
    try:
        credentials: Any = platform.vault.open(row.provider, row.credentials)
    except ConfigurationError:
        raise ConfigurationError(f"CREDENTIALS_KEYS: no key opens the credentials of integration {row.id}") from None
    url = f"{platform.settings.public_base_url}/webhooks/{row.provider}/{row.token}"
    return Connection(row.id, row.org_id, row.provider, url, credentials, businesses)
