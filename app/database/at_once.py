"""A message to the server past SQLAlchemy's own connection object, whose bookkeeping costs more than a row.

Owns nothing but the way: a pooled connection, in autocommit for as long as the message takes, and psycopg2's errors as
SQLAlchemy would have told them. Who asks, as whom and for how long is ``Database``'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import psycopg2
from sqlalchemy import Engine
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
        with connection.cursor() as cursor:
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
