"""What was looked at a moment ago: shared by all who ask, so that asking often costs nothing.

Owns how long an answer is kept, and that one thread looks while the others get the last answer or wait
for the new one. Knows nothing of what is looked at.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

STALE_SECONDS = 10.0  # while somebody looks again, an answer no older than this is good enough for the others

T = TypeVar("T")


class Lately:
    """One process's last answers, by name. Thread-safe."""

    def __init__(self) -> None:
        self._answers: dict[str, tuple[float, Any]] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def ask(self, name: str, seconds: float, look: Callable[[], T]) -> T:
        """The answer of that name, at most ``seconds`` old, or else what ``look`` finds now.

        An exception of ``look`` is the asker's, and is not kept: expected failures belong into its answer.
        """
        kept = self._kept(name, seconds)
        if kept is not None:
            found: T = kept[1]
            return found
        with self._lock:
            lock = self._locks.setdefault(name, threading.Lock())
        if not lock.acquire(blocking=self._kept(name, STALE_SECONDS) is None):
            stale: T = self._answers[name][1]
            return stale
        try:
            if (kept := self._kept(name, seconds)) is None:  # or somebody looked while this thread waited
                answer = look()
                kept = self._answers[name] = (time.monotonic(), answer)
            fresh: T = kept[1]
            return fresh
        finally:
            lock.release()

    def _kept(self, name: str, seconds: float) -> tuple[float, Any] | None:
        kept = self._answers.get(name)
        return kept if kept is not None and time.monotonic() - kept[0] < seconds else None
