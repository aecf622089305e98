"""How long a thread waits for an answer of PostgreSQL: a server that hangs must not hold us for ever.

libpq waits without a limit once a statement is sent: statement_timeout is the server's, and a frozen
server keeps none; TCP's own limits do not end a connection whose other side still acknowledges. So
psycopg2 is told to wait through a function of ours (its "wait callback", made for green threads), which
gives up at the limit the thread has set. The connection is closed then, because its state is unknown.
Owns nothing but the waiting. A thread that has set no limit (migrations) waits as long as a statement takes;
only a connection has to be made in time.
"""

from __future__ import annotations

import math
import select
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg2
from psycopg2 import extensions


class NoAnswer(psycopg2.OperationalError):
    """The server did not answer in time; the connection is closed, and whether it did the work is unknown."""


_waiting = threading.local()
_CONNECTING = {extensions.STATUS_SETUP, 20}  # 20 is psycopg2's own CONN_STATUS_CONNECTING, which has no name here
CONNECT_SECONDS = 5.0  # libpq keeps no connect_timeout when somebody else does the waiting
_EVENTS = {extensions.POLL_READ: select.POLLIN, extensions.POLL_WRITE: select.POLLOUT}


def install() -> None:
    """Make all of psycopg2 in this process wait through `_wait`; safe to call again."""
    extensions.set_wait_callback(_wait)


class _Limit:
    """What one block allows. ``exhausted``: a wait gave up already, and the next ones need not begin."""

    __slots__ = ("exhausted", "seconds", "until")

    def __init__(self, seconds: float, until: float) -> None:
        self.seconds = seconds
        self.until = until
        self.exhausted = False


@contextmanager
def patience(seconds: float, *, until: float = math.inf) -> Iterator[None]:
    """Within the block each answer of the server, and each new connection, may take this thread ``seconds``.

    All of them together may take it until ``until``, by the monotonic clock.
    Afterwards the statement fails with NoAnswer on a closed connection, and so does, at once, all that
    follows in the block: a pool that tries a second connection must not wait a second time.
    """
    before = getattr(_waiting, "limit", None)
    _waiting.limit = _Limit(seconds, until)
    try:
        yield
    finally:
        _waiting.limit = before


def _wait(connection: extensions.connection) -> None:
    """Return when libpq has what it waits for; raises NoAnswer at the limit."""
    limit: _Limit | None = getattr(_waiting, "limit", None)
    until = _until(connection, limit)
    while True:
        state = connection.poll()
        if state == extensions.POLL_OK:
            return
        left = None if until is None else (until - time.monotonic()) * 1000
        if left is not None and left <= 0:
            if limit is not None:
                limit.exhausted = True
            raise NoAnswer("the server did not answer in time")
        waiter = select.poll()
        waiter.register(connection.fileno(), _EVENTS[state])
        waiter.poll(left)


def _until(connection: extensions.connection, limit: _Limit | None) -> float | None:
    """When the waiting ends, by the monotonic clock; None when it need not."""
    if limit is not None:
        now = time.monotonic()
        return now if limit.exhausted else min(now + limit.seconds, limit.until)
    return time.monotonic() + CONNECT_SECONDS if connection.status in _CONNECTING else None
