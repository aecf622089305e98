"""Which version of each row of who is who there is, so that whoever knows the rows need not read them again.

Owns the statements, which read no row's content. A version is the transaction that wrote the row (PostgreSQL docs,
"System Columns", xmin): another one after each change, and comparable only for equality.
"""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

from sqlalchemy import text

from app.database.at_once import Asks

# A sum does not depend on the order; 64 bits of each row's.
_MARK = text(
    """
    SELECT count(*) || ':' || coalesce(sum(hashtextextended(token || xmin, 0)), 0) || ':' || (
        SELECT count(*) || ':' || coalesce(sum(hashtextextended(id || ':' || xmin, 0)), 0) FROM organizations
    ) AS mark FROM integrations WHERE disabled_at IS NULL
    """
)
_INTEGRATIONS = text(
    "SELECT token, org_id, provider, id || ':' || xmin AS version FROM integrations"
    " WHERE disabled_at IS NULL ORDER BY created_at LIMIT :limit"
)
_ORGANIZATIONS = text("SELECT id, xmin::text AS version FROM organizations ORDER BY created_at LIMIT :limit")


class Door(NamedTuple):
    """An enabled integration, as far as it is told here; of the platform when ``org_id`` is None."""

    token: str
    org_id: UUID | None
    provider: str
    version: str


def mark(asks: Asks) -> str:
    """One word for all versions there are: another one after any change of an organization or an integration.

    Reads both tables in the server (10,000 rows: some 10 ms) and returns one row.
    """
    return str(asks.execute(_MARK, {}).all()[0].mark)


def doors(asks: Asks, *, limit: int) -> list[Door]:
    """The enabled integrations, the oldest first."""
    return [Door(*row) for row in asks.execute(_INTEGRATIONS, {"limit": limit}).all()]


def organizations(asks: Asks, *, limit: int) -> dict[UUID, str]:
    """Each organization's version, the oldest first."""
    return {row[0]: row[1] for row in asks.execute(_ORGANIZATIONS, {"limit": limit}).all()}
