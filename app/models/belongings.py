"""All that an organization has, whatever tables there are: found by their ``org_id``, read and deleted.

Owns no table. New ones are found by themselves: a tenant's table has an ``org_id``, and the system role may
delete from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, LargeBinary, Table, TextClause, delete, select, text, tuple_
from sqlalchemy.orm import Session

from app.models.base import Base
from app.models.deliveries import LISTED, UNFINISHED, Delivery
from app.models.ledger import LedgerEntry
from app.models.organizations import Organization

# The books add up over all that ever came; they hold counts alone.
_KEPT = {LedgerEntry.__tablename__}
_NEVER_SHOWN = {"key_hash", "token"}


def _of(table: Table, org_id: UUID) -> list[ColumnElement[bool] | TextClause]:
    """Which rows of a table are the organization's, said so that an index finds them."""
    if table is Organization.__table__:
        return [table.c.id == org_id]
    return [table.c.org_id == org_id, *([text(LISTED)] if table is Delivery.__table__ else [])]


def tables() -> list[Table]:
    """Those with an ``org_id``, what others refer to first."""
    return [table for table in Base.metadata.sorted_tables if "org_id" in table.c]


def read_all(session: Session, org_id: UUID) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every row of the organization by its table's name, without secrets; read as it goes, never all at once."""
    organization = Organization.__table__
    for table in (organization, *tables()):
        assert isinstance(table, Table)
        shown = [column for column in table.c if column.name not in _NEVER_SHOWN and not _is_sealed(column)]
        rows = session.execute(select(*shown).where(*_of(table, org_id)).execution_options(yield_per=500))
        for row in rows.mappings():
            yield table.name, dict(row)


def erase_unfinished(session: Session, org_id: UUID) -> int:
    """Delete what has not come to its end, and enter it in the books as erased; how many."""
    return len(
        session.execute(
            text(
                f"""
                WITH gone AS (
                    DELETE FROM webhook_delivery_log WHERE org_id = :org AND {UNFINISHED} RETURNING provider
                ), booked AS (
                    INSERT INTO ledger_entries (org_id, provider, erased)
                    SELECT :org, provider, count(*) FROM gone GROUP BY provider
                )
                SELECT 1 FROM gone
                """
            ),
            {"org": org_id},
        ).all()
    )


def delete_piece(session: Session, table: Table, org_id: UUID, *, most: int) -> int:
    """Delete some of the organization's rows of a table; how many."""
    if table.name in _KEPT:
        return 0
    keys = list(table.primary_key.columns)
    piece = select(*keys).where(*_of(table, org_id)).limit(most)
    condition = keys[0].in_(piece) if len(keys) == 1 else tuple_(*keys).in_(piece)
    finished = [text(f"NOT ({UNFINISHED})")] if table is Delivery.__table__ else []
    gone = delete(table).where(condition, table.c.org_id == org_id, *finished)
    return len(session.execute(gone.returning(keys[0])).all())


def delete_organization(session: Session, org_id: UUID) -> None:
    """The organization's own row, last."""
    session.execute(delete(Organization).where(Organization.id == org_id))


def is_working(session: Session, org_id: UUID) -> bool:
    """Whether somebody holds one of its lanes just now."""
    leased = "SELECT EXISTS (SELECT FROM lanes WHERE org_id = :org AND token IS NOT NULL AND due_at > now())"
    return bool(session.execute(text(leased), {"org": org_id}).scalar())


def _is_sealed(column: Any) -> bool:
    return isinstance(column.type, LargeBinary) and column.name != "raw"
