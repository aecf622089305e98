"""How a process that was told to stop leaves: within a bound, and with no lease left for others to wait for.

Told once, it has ``grace_seconds`` for what runs; told again, or when they are over, it gives back what
it holds and ends in the middle of it, as a crash would, but without the wait. A handler past its bound is
such an end too: a thread cannot be stopped, so the process lets the others finish and goes, to be started
again; whoever takes its lanes runs that delivery alone. Owns the one thread that does this: a signal's
handler may interrupt whoever holds a lock, so it only puts an order in a queue.
"""

from __future__ import annotations

import os
import queue
import threading
import time
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
LOOK_AGAIN_SECONDS = 0.1
EXIT_CODE = 1  # not 3 or 4, for which gunicorn would end as a whole

log = get_logger(__name__)


class Order(Enum):
    """What a signal says, or the watch over handlers."""

    SOON = "soon"
    NOW = "now"
    STUCK = "stuck"


class Departure:
    """One process's way out. ``end`` is what ends the process, with its exit code.

    ``retire``, where there is one, first lets those finish who are served by the process otherwise.
    """

    def __init__(
        self,
        platform: Platform,
        drains: Sequence[Drain],
        *,
        grace_seconds: float,
        retire: Callable[[], object] | None = None,
        end: Callable[[int], object] = os._exit,
    ) -> None:
        self._platform = platform
        self._drains = drains
        self._grace_seconds = grace_seconds
        self._retire = retire
        self._end = end
        self.stuck = False
        self._orders: queue.SimpleQueue[Order] = queue.SimpleQueue()  # its put is safe in a signal's handler

    def expect(self) -> None:
        """Begin to listen for orders; after the fork, if there is one, because threads do not survive it."""
        self._platform.on_stuck = lambda: self._orders.put(Order.STUCK)
        threading.Thread(target=self._run, name="departure", daemon=True).start()

    def soon(self) -> None:
        """End when what runs has ended, at the latest when the grace is over; returns at once."""
        self._orders.put(Order.SOON)

    def now(self) -> None:
        """Give back what is held, within a second, and end; returns at once."""
        self._orders.put(Order.NOW)

    def _run(self) -> None:
        first = self._orders.get()
        if first is Order.SOON:
            self._wait()
        elif first is Order.STUCK:
            self._end_claiming()
            self._wait(lambda: any(drain.runs_others() for drain in self._drains))
            if self._retire is not None:
                self._give_back()
                self._retire()
                self._wait()
        self._leave()

    def _end_claiming(self) -> None:
        self.stuck = True
        log.error("departure.stuck")
        for drain in self._drains:
            drain.claim_no_more()

    def _wait(self, as_long_as: Callable[[], bool] = lambda: True) -> None:
        """For the grace, or until told to go now; a handler that does not end is no news to who leaves anyway."""
        until = time.monotonic() + self._grace_seconds
        while (left := until - time.monotonic()) > 0 and as_long_as():
            with suppress(queue.Empty):
                if self._orders.get(timeout=min(left, LOOK_AGAIN_SECONDS)) is Order.NOW:
                    return

    def _leave(self) -> None:
        watchdog = threading.Timer(GIVE_BACK_SECONDS, self._end, (EXIT_CODE,))
        watchdog.daemon = True
        watchdog.start()
        self._give_back()
        watchdog.cancel()
        self._end(EXIT_CODE)

    def _give_back(self) -> None:
        isolation.end_all()  # before their lanes are another's
        for drain in self._drains:
            try:
                drain.give_back(statement_timeout_ms=STATEMENT_TIMEOUT_MS)
            except DatabaseUnavailable:
                log.warning("departure.no_database")  # the leases end by themselves
        self._platform.bell.ring_now()
