"""Being told to stop by a signal, for a process that waits in its main thread.

Owns only that. A handler runs in the main thread, between any two of its steps: setting a ``threading.Event`` there
waits for ever when the main thread is just inside ``wait`` of the same one and holds its lock.
"""

from __future__ import annotations

import contextlib
import queue


class Told:
    """Whether this process was told to stop. ``tell`` is for handlers, ``within`` for the loop they interrupt."""

    def __init__(self) -> None:
        self._word: queue.SimpleQueue[None] = queue.SimpleQueue()  # its put is safe in a signal's handler
        self._told = False

    def tell(self) -> None:
        """Stop; returns at once."""
        self._told = True
        self._word.put(None)

    def within(self, seconds: float) -> bool:
        """Whether it was told; waits that long for it, and no longer."""
        if not self._told:
            with contextlib.suppress(queue.Empty):
                self._word.get(timeout=seconds)
        return self._told
