"""How a process that was told to stop leaves: within a bound, and with no lease left for others to wait for.

Told once, it has ``grace_seconds`` for what runs; told again, or when they are over, it gives back what
it holds and ends in the middle of it, as a crash would, but without the wait. Owns the one thread that
does this: a signal's handler may interrupt whoever holds a lock, so it only puts an order in a queue.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import Enum
from typing import TYPE_CHECKING

from app.errors import DatabaseUnavailable
from app.observability.logging import get_logger
from app.services import isolation
from app.services.drain import Drain

if TYPE_CHECKING:
    from app.services.platform import Platform

GIVE_BACK_SECONDS = 1.0
STATEMENT_TIMEOUT_MS = 400  # one statement a drain; a database that hangs must not keep us
EXIT_CODE = 1

log = get_logger(__name__)


class Order(Enum):
    """What a signal says."""

    SOON = "soon"
    NOW = "now"


class Departure:
    """One process's way out. ``end`` is what ends the process, with its exit code."""

    def __init__(
        self,
        platform: Platform,
        drains: Sequence[Drain],
        *,
        grace_seconds: float,
        end: Callable[[int], object] = os._exit,
    ) -> None:
        self._platform = platform
        self._drains = drains
        self._grace_seconds = grace_seconds
        self._end = end
        self._orders: queue.SimpleQueue[Order] = queue.SimpleQueue()  # its put is safe in a signal's handler

    def expect(self) -> None:
        """Begin to listen for orders; after the fork, if there is one, because threads do not survive it."""
        threading.Thread(target=self._run, name="departure", daemon=True).start()

    def soon(self) -> None:
        """End when what runs has ended, at the latest when the grace is over; returns at once."""
        self._orders.put(Order.SOON)

    def now(self) -> None:
        """Give back what is held, within a second, and end; returns at once."""
        self._orders.put(Order.NOW)

    def _run(self) -> None:
        if self._orders.get() is Order.SOON:
            with suppress(queue.Empty):
                self._orders.get(timeout=self._grace_seconds)
        watchdog = threading.Timer(GIVE_BACK_SECONDS, self._end, (EXIT_CODE,))
        watchdog.daemon = True
        watchdog.start()
        isolation.end_all()  # before their lanes are another's
        for drain in self._drains:
            try:
                drain.give_back(statement_timeout_ms=STATEMENT_TIMEOUT_MS)
            except DatabaseUnavailable:
                log.warning("departure.no_database")  # the leases end by themselves
        self._platform.bell.ring_now()
        watchdog.cancel()
        self._end(EXIT_CODE)
