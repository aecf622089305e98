"""A pooled connection is asked whether it is alive before it is used: a restarted server costs one ping, no failure.

Owns when that is left out: by who can repeat what he does, or has done nothing yet, for a connection that was in use a
moment ago.
(SQLAlchemy's own ``pool_pre_ping`` asks always.)
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.exc import InvalidatePoolError

FRESH_SECONDS = 1.0
_RETURNED = "voicedesk.returned"


class Pings:
    """Of one engine. Thread-safe."""

    def __init__(self) -> None:
        self._here = threading.local()

    @contextmanager
    def left_out(self, wanted: bool) -> Iterator[None]:
        """Within the block this thread takes connections that were just in use without asking them, if ``wanted``."""
        self._here.left_out = wanted
        try:
            yield
        finally:
            self._here.left_out = False

    def listen(self, engine: Engine) -> None:
        """Look at every connection that leaves the engine's pool."""
        dialect = engine.dialect

        def look(connection: Any, record: Any, _proxy: Any) -> None:
            returned = record.info.get(_RETURNED)
            if returned is None:
                return  # it has just been made
            if getattr(self._here, "left_out", False) and time.monotonic() - returned < FRESH_SECONDS:
                return
            try:
                dialect.do_ping(connection)
            except dialect.loaded_dbapi.Error as error:
                if dialect.is_disconnect(error, connection, None):
                    raise InvalidatePoolError from error  # the pool makes new ones
                raise

        def note(_connection: Any, record: Any) -> None:
            record.info[_RETURNED] = time.monotonic()

        event.listen(engine, "checkout", look)
        event.listen(engine, "checkin", note)
