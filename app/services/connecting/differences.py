"""One thing that a provider has otherwise than it should be, and what a connection is when it is looked at.

Owns the two shapes that every provider's comparison takes and gives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from app.services.credentials import Credentials
from app.services.directory import Business

NOTHING = "(nothing)"


@dataclass(frozen=True, slots=True)
class Connection:
    """An integration with its credentials opened, and whom it serves: one organization, or many of the platform's."""

    integration_id: UUID
    org_id: UUID | None
    provider: str
    webhook_url: str
    credentials: Credentials
    businesses: tuple[Business, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """``has`` and ``should`` are for people to read; ``mend`` sets it right, where that can be done from here."""

    connection: Connection
    what: str
    has: str
    should: str
    fix: str
    mend: Callable[[], None] | None = None
    business: Business | None = None

    def row(self) -> dict[str, Any]:
        """As plain data; ``mends`` says whether `integration apply` sets it right."""
        org_id = self.business.id if self.business else self.connection.org_id
        return {
            "integration_id": str(self.connection.integration_id),
            "org_id": str(org_id) if org_id else None,
            "organization": self.business.name if self.business else "the platform",
            "provider": self.connection.provider,
            "what": self.what,
            "has": self.has or NOTHING,
            "should": self.should or NOTHING,
            "fix": self.fix,
            "mends": self.mend is not None,
        }


def apply_fix(connection: Connection) -> str:
    """The command that sets right what can be set right from here."""
    return f"integration apply {connection.integration_id} --yes"
