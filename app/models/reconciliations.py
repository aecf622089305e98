"""How far each integration has been compared with its provider, and what was missing.

Owns ``reconciliations``. It hangs on an integration and only the system role sees it.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import ForeignKey, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from app.models.base import Base
from app.models.integrations import Integration


class Reconciliation(Base):
    """One integration. All that is older than ``compared_until`` has been compared.

    ``missing`` is of the last time anything was. ``error_code``: why the last comparison did not come to its end.
    """

    __tablename__ = "reconciliations"

    integration_id: Mapped[UUID] = mapped_column(ForeignKey("integrations.id", ondelete="CASCADE"), primary_key=True)
    compared_until: Mapped[datetime | None]
    ran_at: Mapped[datetime | None]
    theirs: Mapped[int] = mapped_column(server_default="0")
    missing: Mapped[int] = mapped_column(server_default="0")
    missing_at: Mapped[datetime | None]
    error_code: Mapped[str | None]


def list_waiting(
    session: Session, provider: str, *, org_id: UUID | None, limit: int
) -> list[tuple[Integration, datetime | None]]:
    """Enabled integrations with a provider and how far each was compared, the one that waits longest first."""
    statement = (
        select(Integration, Reconciliation.compared_until)
        .outerjoin(Reconciliation, Reconciliation.integration_id == Integration.id)
        .where(Integration.provider == provider, Integration.disabled_at.is_(None))
        .order_by(Reconciliation.ran_at.asc().nulls_first(), Integration.id)
        .limit(limit)
    )
    if org_id is not None:
        statement = statement.where((Integration.org_id == org_id) | Integration.org_id.is_(None))
    return [(row[0], row[1]) for row in session.execute(statement)]


def note_comparison(
    session: Session,
    integration_id: UUID,
    *,
    compared_until: datetime | None,
    theirs: int,
    missing: int,
    error_code: str | None,
) -> None:
    """What a comparison came to; ``compared_until`` None leaves how far it was."""
    values: dict[str, object] = {"ran_at": func.now(), "theirs": theirs, "error_code": error_code}
    if compared_until is not None:
        values["compared_until"] = compared_until
    if missing:
        values |= {"missing": missing, "missing_at": func.now()}
    row = insert(Reconciliation).values(integration_id=integration_id, **values)
    session.execute(row.on_conflict_do_update(index_elements=[Reconciliation.integration_id], set_=values))


def list_missing(session: Session, *, within: timedelta) -> list[tuple[UUID, UUID | None, str, int]]:
    """Where something was missing within the time: integration, organization, provider, how much."""
    rows = session.execute(
        select(Integration.id, Integration.org_id, Integration.provider, Reconciliation.missing)
        .join(Reconciliation, Reconciliation.integration_id == Integration.id)
        .where(Reconciliation.missing_at > func.now() - within)
        .order_by(Integration.id)
        .limit(100)
    )
    return [(row[0], row[1], row[2], row[3]) for row in rows]
