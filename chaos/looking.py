"""A thread that looks at something again and again while its block lasts. Owns the thread, and nothing it sees."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from typing import ClassVar, Self


class Looking(ABC):
    """Begins with the block; leaving it waits for the last look."""

    every_seconds: ClassVar[float]

    def __enter__(self) -> Self:
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=type(self).__name__.lower(), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.is_set():
            began = time.monotonic()
            self.look_once()
            self._ended.wait(max(0.0, self.every_seconds - (time.monotonic() - began)))

    @abstractmethod
    def look_once(self) -> None:
        """Look, and keep what is seen; must not raise."""
