"""A message to the server past SQLAlchemy's own connection object, whose bookkeeping costs more than a row.

Owns nothing but the way: a pooled connection, in autocommit for as long as the message takes, and psycopg2's errors as
SQLAlchemy would have told them. Who asks, as whom and for how long is ``Database``'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Protocol, cast

import psycopg2
from psycopg2.extras import NamedTupleCursor
from sqlalchemy import Engine, TextClause
from sqlalchemy.dialects.postgresql.psycopg2 import PGDialect_psycopg2
from sqlalchemy.exc import DBAPIError


def ask(engine: Engine, message: str, values: Mapping[str, Any]) -> Sequence[Any]:
    """The rows of the message's last statement, all of which is committed then. ``message`` is in psycopg2's form.

    Raises DBAPIError; ``connection_invalidated`` says that the connection was lost.
    """
    try:
        held = engine.raw_connection()
    except psycopg2.Error as error:
        raise _told(engine, error, lost=_is_lost(engine, error)) from error
    connection = cast(Any, held.dbapi_connection)
    try:
        connection.autocommit = True
        with connection.cursor(cursor_factory=NamedTupleCursor) as cursor:
            cursor.execute(message, values)
            rows: Sequence[Any] = cursor.fetchall()
        connection.autocommit = False
    except psycopg2.Error as error:
        lost = bool(connection.closed) or _is_lost(engine, error)
        if lost:
            held.invalidate(error)
        else:
            connection.autocommit = False
        raise _told(engine, error, lost=lost) from error
    except BaseException:
        held.invalidate()  # nobody knows what state it is in
        raise
    finally:
        held.close()
    return rows


@cache
def message_of(statement: TextClause) -> str:
    """The statement in psycopg2's form; it must be one that is built once, because the form is kept."""
    return str(statement.compile(dialect=PGDialect_psycopg2()))  # type: ignore[no-untyped-call]


class Rows(Protocol):
    """What a statement has returned."""

    def all(self) -> Sequence[Any]:
        """Rows, whose columns have names."""


class Asks(Protocol):
    """Who runs a statement: a session in its transaction, or ``AtOnce`` in one of its own."""

    def execute(self, statement: TextClause, values: Mapping[str, Any]) -> Rows:
        """Run it."""


class AtOnce:
    """Runs each statement as a transaction of its own, which is one message to the server and nothing else.

    A statement must be safe to repeat (see ``Database.at_once``).
    """

    def __init__(self, run: Callable[[str, Mapping[str, Any]], Sequence[Any]]) -> None:
        self._run = run

    def execute(self, statement: TextClause, values: Mapping[str, Any]) -> Rows:
        """Run it, and commit; raises what ``Database.transaction`` does."""
        return _Fetched(self._run(message_of(statement), values))


class _Fetched:
    __slots__ = ("_rows",)

    def __init__(self, rows: Sequence[Any]) -> None:
        self._rows = rows

    def all(self) -> Sequence[Any]:
        return self._rows


def _is_lost(engine: Engine, error: psycopg2.Error) -> bool:
    return engine.dialect.is_disconnect(cast(Any, error), None, None)


def _told(engine: Engine, error: psycopg2.Error, *, lost: bool) -> DBAPIError:
    told = DBAPIError.instance(
        None,
        None,
        error,
        psycopg2.Error,
        hide_parameters=True,
        connection_invalidated=lost,
        dialect=engine.dialect,
    )
    return cast(DBAPIError, told)
