"""A word in whatever any table says: found piece by piece along primary keys, whatever tables there are.

Owns no table, like ``belongings``: new ones are searched by themselves. What is encrypted cannot be searched here.
A piece is one statement of bounded size, so that a search of tens of millions of rows disturbs nobody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import (
    Column,
    ColumnElement,
    LargeBinary,
    String,
    Table,
    Text,
    and_,
    cast,
    func,
    literal,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from app.models.base import Base

# Keys, dates and counts alone: nothing in them is anybody's words.
_SKIPPED = {"lanes", "processed_webhook_events", "ledger_entries", "singletons", "house_keys"}
_PLAIN_BYTES = {"raw"}  # all other bytes are sealed
# Between two digits of a number as people write it; of "\\n" in JSON the letter, too. Letters more only glue more.
_BETWEEN = " \t\n\r\u00a0\u2007\u2011\u2013\u202f-./()_\\nrt"

Key = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """What one piece came to: keys of rows that may say it, and where the next begins (None: nothing is left)."""

    hits: list[Key]
    last: Key | None


def searched() -> list[Table]:
    """Every table that has words."""
    return [table for table in Base.metadata.sorted_tables if table.name not in _SKIPPED and words_of(table)]


def words_of(table: Table) -> list[Column[Any]]:
    """The columns of a table that hold text, JSON or plain bytes."""
    return [
        column
        for column in table.c
        if isinstance(column.type, String | JSONB)
        or (isinstance(column.type, LargeBinary) and column.name in _PLAIN_BYTES)
    ]


def search(
    session: Session, table: Table, digits: str, *, after: Key | None, org_id: UUID | None, most: int
) -> Piece | None:
    """The next piece of a table: rows in which these digits stand in a row, whatever is between them.

    None when an organization is asked for and the table has none. May find too much, never too little.
    """
    keys = list(table.primary_key.columns)
    said = func.translate(func.concat_ws(" ", *(_as_text(column) for column in words_of(table))), _BETWEEN, "")
    statement = select(*keys, (func.strpos(said, digits) > 0).label("hit")).order_by(*keys).limit(most)
    if org_id is not None:
        if "org_id" not in table.c:
            return None
        statement = statement.where(table.c.org_id == org_id)
    if after is not None:
        statement = statement.where(
            tuple_(*keys) > tuple_(*(literal(value, key.type) for value, key in zip(after, keys, strict=True)))
        )
    rows = session.execute(statement).all()
    return Piece(
        hits=[tuple(row[:-1]) for row in rows if row[-1]], last=tuple(rows[-1][:-1]) if len(rows) == most else None
    )


def read(session: Session, table: Table, key: Key) -> Mapping[str, Any] | None:
    """What the row says, locked until the transaction ends."""
    found = session.execute(select(*words_of(table)).where(_is(table, key)).with_for_update()).mappings().first()
    return dict(found) if found is not None else None


def write(session: Session, table: Table, key: Key, changed: Mapping[str, Any]) -> None:
    """Say something else in these columns."""
    session.execute(update(table).where(_is(table, key)).values(**changed))


def may_write(session: Session, table: Table) -> bool:
    """Whether the role of this transaction may rewrite the table at all."""
    return bool(session.scalar(select(func.has_table_privilege(table.name, "UPDATE"))))


def _as_text(column: Column[Any]) -> ColumnElement[Any]:
    return func.encode(column, "escape") if isinstance(column.type, LargeBinary) else cast(column, Text)


def _is(table: Table, key: Key) -> ColumnElement[bool]:
    keys: Sequence[Column[Any]] = list(table.primary_key.columns)
    return and_(*(column == value for column, value in zip(keys, key, strict=True)))
