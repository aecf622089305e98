"""The nightly cleanup of one process: in a thread of its own, because deliveries must not wait for it.

Owns when it is due: at 04:00 UTC, told by the schedule's job; and where no job came (no Redis, no scheduler,
a missed night) by the sweep, which asks a date that all processes share.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from datetime import UTC, datetime, timedelta
from datetime import time as time_of_day
from typing import TYPE_CHECKING

from app.errors import DatabaseUnavailable
from app.models.operations import keep_date, take_if_due
from app.observability import errors
from app.observability.logging import get_logger
from app.services.cleanup import BusyCleaning, clean_up

if TYPE_CHECKING:
    from app.services.platform import Platform

AT = time_of_day(4, 0, tzinfo=UTC)
GRACE = timedelta(hours=1)  # with Redis, the schedule's job comes first
LOOK_SECONDS = 30.0
DUE = "cleanup_due"

log = get_logger(__name__)


def next_night(now: datetime) -> datetime:
    """The next 04:00 UTC after ``now`` (aware)."""
    tonight = datetime.combine(now.astimezone(UTC).date(), AT)
    return tonight if tonight > now else tonight + timedelta(days=1)


class Nightly:
    """One process's cleaner."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._start = threading.Lock()
        self._looked = -LOOK_SECONDS

    def begin(self) -> bool:
        """It is time: clean up in a thread; returns at once, False if it runs here already."""
        with self._start:
            if self._thread is not None and self._thread.is_alive():
                return False
            self._stopping.clear()
            self._thread = threading.Thread(target=self._run, name="cleanup", daemon=True)
            self._thread.start()
            return True

    def tend(self) -> None:
        """Begin if the date has passed and nobody has; called by every sweep, looks every half a minute.

        Raises DatabaseUnavailable.
        """
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        grace = GRACE if self._platform.redis_answers() else timedelta()
        with self._platform.database.transaction(system=True) as session:
            due = take_if_due(
                session, DUE, next_at=next_night(datetime.now(UTC)), late_by=grace, holder=socket.gethostname()
            )
        if due:
            self.begin()

    def stop(self, timeout_seconds: float = 5.0) -> None:
        """Begin no new piece, and wait for the one that runs, at most that long."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout=timeout_seconds)

    def _run(self) -> None:
        try:
            with self._platform.database.transaction(system=True) as session:
                keep_date(session, DUE, next_night(datetime.now(UTC)), holder=f"{socket.gethostname()}:{os.getpid()}")
            clean_up(self._platform, keep_going=lambda: not self._stopping.is_set())
        except BusyCleaning:
            log.info("cleanup.elsewhere")
        except DatabaseUnavailable:
            log.warning("cleanup.no_database")  # what is left goes the next night
        except Exception as error:  # noqa: BLE001 - a thread's end; what is left goes the next night
            errors.report(error, where="thread", event="cleanup.failed")
