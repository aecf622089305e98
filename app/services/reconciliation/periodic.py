"""The comparison that happens by itself, in a thread of its own, because deliveries must not wait for it.

Owns when it is due: a date that all processes share, asked by the schedule's job, and by the sweep where no job comes.
"""

from __future__ import annotations

import socket
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from app.errors import DatabaseUnavailable
from app.models.operations import keep_date, read_date, take_if_due
from app.observability import errors
from app.observability.logging import get_logger
from app.services.reconciliation.comparing import BusyComparing, compare

if TYPE_CHECKING:
    from app.services.platform import Platform

DUE = "reconcile_due"
LOOK_SECONDS = 30.0

log = get_logger(__name__)


class Reconciler:
    """One process's."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._start = threading.Lock()
        self._looked = -LOOK_SECONDS

    def tend(self) -> None:
        """Begin if it is due; called by every sweep, looks every half a minute. Raises DatabaseUnavailable."""
        if time.monotonic() - self._looked >= LOOK_SECONDS:
            self._looked = time.monotonic()
            self.begin_if_due()

    def begin_if_due(self) -> bool:
        """Begin in a thread if the date has passed and nobody has; the first time ever, an interval after the start.

        Raises DatabaseUnavailable.
        """
        host = socket.gethostname()
        next_at = datetime.now(UTC) + timedelta(seconds=self._platform.settings.reconcile_seconds)
        with self._platform.database.transaction(system=True) as session:
            if read_date(session, DUE) is None:
                keep_date(session, DUE, next_at, holder=host)
                return False
            due = take_if_due(session, DUE, next_at=next_at, late_by=timedelta(), holder=host)
        return due and self._begin()

    def stop(self, timeout_seconds: float = 5.0) -> None:
        """Ask nobody anything more, and wait for what was asked, at most that long."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout=timeout_seconds)

    def _begin(self) -> bool:
        with self._start:
            if self._thread is not None and self._thread.is_alive():
                return False
            self._stopping.clear()
            self._thread = threading.Thread(target=self._run, name="reconcile", daemon=True)
            self._thread.start()
            return True

    def _run(self) -> None:
        try:
            compare(self._platform, keep_going=lambda: not self._stopping.is_set())
        except BusyComparing:
            log.info("reconcile.elsewhere")
        except DatabaseUnavailable:
            log.warning("reconcile.no_database")  # the next one begins where this one did
        except Exception as error:  # noqa: BLE001 - a thread's end; the next one begins where this one did
            errors.report(error, where="thread", event="reconcile.failed")
