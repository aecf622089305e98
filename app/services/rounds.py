"""Rounds: what is put here by somebody who cannot wait is done by threads of its own, all that is there at once.

Owns when a round begins and what goes into it. One after the other: what comes meanwhile is the next round; nobody
waits for company. Only a round that takes long (it stands before a lock) lets another begin beside it. Knows nothing
of what is done. For those who wait themselves there is ``together.py``, with the same bounds.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

from app.observability.errors import report
from app.services.together import IMPATIENT_SECONDS, MOST_ROUNDS, Sized, fill

T = TypeVar("T", bound=Sized)


class Rounds(Generic[T]):
    """Of one process. ``run`` does a list; what it raises is reported, and the next round begins. Thread-safe."""

    def __init__(self, run: Callable[[list[T]], None], *, name: str) -> None:
        self._run = run
        self._name = name
        self._lock = threading.Lock()
        self._waiting: deque[T] = deque()
        self._running = 0
        self._began = 0.0  # the latest round
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._threads = 0

    def put(self, item: T) -> None:
        """Let it be done; returns at once."""
        with self._lock:
            self._waiting.append(item)
            hangs = self._running and time.monotonic() - self._began > IMPATIENT_SECONDS
            if self._running and not (hangs and self._running < MOST_ROUNDS):
                return
            self._running += 1
            self._began = time.monotonic()
            is_short_of_threads = self._threads < self._running
            self._threads += is_short_of_threads
        if is_short_of_threads:  # not before it is needed: whoever forks afterwards has none
            threading.Thread(target=self._work, name=f"{self._name}-{self._running}", daemon=True).start()
        self._wake.put(None)

    def is_idle(self) -> bool:
        """Whether nothing is done and nothing waits."""
        with self._lock:
            return not self._running and not self._waiting

    def _work(self) -> None:
        while True:
            self._wake.get()
            while group := self._take():
                try:
                    self._run(group)
                except Exception as error:  # noqa: BLE001 - one round's trouble must not end all that come after it
                    with suppress(Exception):  # not even one that cannot be told
                        report(error, where="thread", event="rounds.failed")

    def _take(self) -> list[T]:
        """The next round, as much as one holds; none: this thread's turn is over."""
        group: list[T] = []
        with self._lock:
            fill(group, self._waiting)
            if group:
                self._began = time.monotonic()
            else:
                self._running -= 1
        return group
