"""What goes wrong: each error logged, counted by its kind, and sent to Sentry when that is configured.

Owns the kinds, the counts of this process (`Tally`), and the last handlers of all, of threads and of the
process. How counts of several processes come together is the service's (services/error_counts.py). Never
waits for anybody, and never says what an exception says: its class, its code and its place are enough.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Literal

from app.errors import VoicedeskError
from app.observability import metrics, sentry
from app.observability.logging import describe, frames_of, get_logger

Where = Literal["web", "delivery", "job", "scheduler", "cli", "thread"]

SLOT_SECONDS = 10  # counts are kept in slots of this length
KEPT_SECONDS = 3600 + SLOT_SECONDS
MOST_KINDS = 100  # beyond it they are counted as one: kinds are ours, but a bug may make up names
OTHER = "other"
MOST_SENT_A_SLOT = 5  # of one kind to Sentry: an outage is one story, not ten thousand

Counts = dict[tuple[int, str], int]

log = get_logger(__name__)


class Tally:
    """Errors counted in memory: per slot of ten seconds and kind, for an hour. Thread-safe, and bounded."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._counts: Counts = {}
        self._untold: Counts = {}
        self._kinds: set[str] = set()
        self.on_count: Callable[[], None] | None = None

    def count(self, kind: str) -> int:
        """Count one; returns how many of this kind the present slot has now."""
        slot = self.slot()
        with self._lock:
            if kind not in self._kinds and len(self._kinds) >= MOST_KINDS:
                self._forget_old(slot)
                kind = kind if len(self._kinds) < MOST_KINDS else OTHER
            key = (slot, kind)
            if key not in self._counts:
                self._forget_old(slot)
                self._kinds.add(kind)
            self._counts[key] = self._counts.get(key, 0) + 1
            self._untold[key] = self._untold.get(key, 0) + 1
            number = self._counts[key]
        if self.on_count is not None:
            self.on_count()
        return number

    def slot(self) -> int:
        """The number of the present slot, the same in all processes."""
        return int(self._clock() // SLOT_SECONDS)

    def counts(self) -> Counts:
        """Everything counted here in the last hour."""
        with self._lock:
            return dict(self._counts)

    def untold(self) -> Counts:
        """What has been counted here and not been taken yet."""
        with self._lock:
            return dict(self._untold)

    def told(self, counts: Counts) -> None:
        """Somebody else knows of these now."""
        with self._lock:
            for key, number in counts.items():
                left = self._untold.get(key, 0) - number
                if left > 0:
                    self._untold[key] = left
                else:
                    self._untold.pop(key, None)

    def after_fork(self) -> None:
        """In a child: the parent tells its own, and its threads hold no lock here."""
        self._lock = threading.Lock()
        self._counts, self._untold = {}, {}

    def _forget_old(self, slot: int) -> None:
        oldest = slot - KEPT_SECONDS // SLOT_SECONDS
        for counts in (self._counts, self._untold):
            for key in [key for key in counts if key[0] < oldest]:
                del counts[key]
        self._kinds = {kind for _, kind in self._counts}


_tally = Tally()


def count_into(tally: Tally) -> None:
    """From now on this process counts into ``tally``; whoever builds a platform brings its own."""
    global _tally
    _tally = tally


def report(error: BaseException, *, where: Where, event: str = "error.reported", **facts: Any) -> None:
    """Log, count and, if Sentry is configured, send an error that nobody expected; returns at once.

    ``where`` is the door it came to; with the error's code, or else its class, it makes the kind that is
    counted (``web:KeyError``). ``event`` names the log line, ``facts`` are its fields: ids, types and
    codes only. The ids that are bound to this work come along by themselves.
    """
    kind = kind_of(error, where)
    log.error(event, where=where, kind=kind, trace=frames_of(error), **{**facts, **describe(error)})
    metrics.error_reported(kind)
    if _tally.count(kind) <= MOST_SENT_A_SLOT:
        sentry.send(error, kind=kind, where=where)


def count(kind: str) -> None:
    """Count an error that has been logged where it happened and is nothing to send, by its kind."""
    metrics.error_reported(kind)
    _tally.count(kind)


def kind_of(error: BaseException, where: Where) -> str:
    """A short stable name: the door, and the error's code or class."""
    return f"{where}:{error.code if isinstance(error, VoicedeskError) else type(error).__name__}"


def watch_process(where: Where) -> None:
    """Report what nobody caught, in this process's main thread as ``where`` and in its others as ``thread``.

    Without this Python prints the traceback, and with it the exception's text, to stderr.
    """

    def last(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.stderr.write("interrupted\n")
            return
        report(error.with_traceback(trace), where=where, event="process.failed")

    sys.excepthook = last
    threading.excepthook = report_thread


def report_thread(ended: threading.ExceptHookArgs) -> None:
    """What a thread died of; fit for ``threading.excepthook``."""
    if ended.exc_value is not None and not isinstance(ended.exc_value, SystemExit):
        report(ended.exc_value, where="thread", event="thread.failed", thread=ended.thread.name if ended.thread else "")
