"""The sync fallback and the sweep of a web process: one thread that sees that work moves.

Owns when this process delivers by itself: when its bell could not be rung, and, holding the sweeper's
role (a row with a lease, so that one process of all does it), when something has been due for too
long. Begins on first use, because threads do not survive a fork.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING

from app.errors import DatabaseUnavailable
from app.models.lanes import end_impossible_leases, next_due
from app.models.operations import hold_singleton, release_singleton
from app.observability.errors import report
from app.observability.logging import get_logger
from app.services.drain import Drain

if TYPE_CHECKING:
    from app.services.platform import Platform

SWEEP_SECONDS = 5.0
SWEEP_ALONE_SECONDS = 1.0  # without Redis nobody else looks at dates
SWEEPER_LEASE = timedelta(seconds=10)
OVERDUE_SECONDS = 15.0  # rung for and still due: no worker lives, so this process does it

log = get_logger(__name__)


class Caretaker:
    """One web process's caretaker."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self.drain = Drain(platform, threads=platform.settings.fallback_threads)
        self._nudged = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._swept = False
        self._name = f"{socket.gethostname()}:{os.getpid()}"

    def start(self) -> None:
        """Begin; safe to call again."""
        if self._thread is None or not self._thread.is_alive():
            self._stopping.clear()
            self._name = f"{socket.gethostname()}:{os.getpid()}"
            self._thread = threading.Thread(target=self._run, name="caretaker", daemon=True)
            self._thread.start()

    def nudge(self) -> None:
        """There is work and the bell could not be rung: deliver here, now, after the answer."""
        self.start()
        self._nudged.set()

    def claim_no_more(self) -> None:
        """End early whatever is being delivered here; returns at once, also from a signal's handler."""
        self._stopping.set()

    def stop(self, timeout_seconds: float = 20.0) -> None:
        """Claim nothing more and wait for what is running, at most that long."""
        self._stopping.set()
        self._nudged.set()
        if self._thread is not None:
            self._thread.join(timeout=timeout_seconds)
        if self._swept:
            self._give_back_role()

    def _run(self) -> None:
        swept = 0.0
        while not self._stopping.is_set():
            self._nudged.wait(timeout=SWEEP_ALONE_SECONDS)
            nudged = self._nudged.is_set()
            self._nudged.clear()
            if self._stopping.is_set():
                return
            try:
                if nudged:
                    self._deliver()
                self._platform.directory.keep_fresh()
                every = SWEEP_ALONE_SECONDS if not self._platform.redis_answers() else SWEEP_SECONDS
                if time.monotonic() - swept >= every:
                    swept = time.monotonic()
                    self.sweep()
                    self._platform.nightly.tend()
                    self._platform.reconciler.tend()
            except DatabaseUnavailable:
                log.warning("caretaker.no_database")
                self._stopping.wait(SWEEP_ALONE_SECONDS)
            except Exception as error:  # noqa: BLE001 - the caretaker must outlive one bad round
                report(error, where="thread", event="caretaker.failed")
                self._stopping.wait(SWEEP_ALONE_SECONDS)

    def sweep(self) -> None:
        """If this process is the sweeper: ring for what is due, and do it here when ringing does not help."""
        self.drain.clock.look()
        with self._platform.database.transaction(system=True) as session:
            if not hold_singleton(session, "sweeper", holder=self._name, lease=SWEEPER_LEASE):
                return
            self._swept = True
            end_impossible_leases(session, lease_seconds=self._platform.settings.lease_seconds)
            due, since_seconds = next_due(session)
        self._platform.waker.tend()
        if due and (not self._platform.bell.ring_now() or since_seconds > OVERDUE_SECONDS):
            self._deliver()

    def _give_back_role(self) -> None:
        """So that the next process sweeps at once, and not when the lease ends."""
        self._swept = False
        try:
            with self._platform.database.transaction(system=True) as session:
                release_singleton(session, "sweeper", holder=self._name)
        except DatabaseUnavailable:
            log.warning("caretaker.no_database")  # the lease ends by itself

    def _deliver(self) -> None:
        self.drain.run(keep_going=lambda: not self._stopping.is_set())
