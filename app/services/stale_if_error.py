"""What was looked up, kept for a while: fresh for seconds, and used for ever while it cannot be looked up again.

Owns how long a value is believed, and how many are kept. Knows nothing of what is looked up.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import Generic, TypeVar

from app.errors import DatabaseUnavailable

MOST_ENTRIES = 20_000

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class _Entry(Generic[V]):
    """What is known of one key: since when at the least it is so."""

    __slots__ = ("at", "value")

    def __init__(self, value: V, at: float) -> None:
        self.value = value
        self.at = at


class StaleIfError(Generic[K, V]):
    """A bounded cache over one look-up. Thread-safe.

    What does not exist is not cached, so that a new integration works at once. Values that have a ``version`` can be
    confirmed without being read again.
    """

    def __init__(self, read: Callable[[K], V], *, fresh_seconds: float) -> None:
        self._read = read
        self._fresh_seconds = fresh_seconds
        self._entries: OrderedDict[K, _Entry[V]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: K) -> V:
        """The value; raises DatabaseUnavailable only when it was never known."""
        entry = self._entries.get(key)
        if entry and self._is_fresh(entry):
            return entry.value
        began = time.monotonic()
        try:
            value = self._read(key)
        except DatabaseUnavailable:
            if entry is None:
                raise
            return entry.value
        if value is None:
            with self._lock:
                self._entries.pop(key, None)
            return value
        self.learn(key, value, at=began)
        return value

    def fresh(self, key: K) -> V | None:
        """The value, if it is known and need not be looked up again."""
        entry = self._entries.get(key)
        return entry.value if entry and self._is_fresh(entry) else None

    def _is_fresh(self, entry: _Entry[V]) -> bool:
        return time.monotonic() - entry.at < self._fresh_seconds

    def learn(self, key: K, value: V, *, at: float) -> None:
        """Keep what was read; ``at``: when the reading began."""
        with self._lock:
            self._entries[key] = _Entry(value, at)
            self._entries.move_to_end(key)
            while len(self._entries) > MOST_ENTRIES:
                self._entries.popitem(last=False)

    def confirm(self, versions: Mapping[K, str], *, at: float) -> list[K]:
        """The versions there were at that moment: what is known of these is so still, or else is not fresh any more.

        Returns the keys of ``versions`` whose value is not known. What was read since then stays as it is, and what
        has no version.
        """
        for key, entry in self._versioned_before(at):
            entry.at = at if versions.get(key) == getattr(entry.value, "version", None) else -math.inf
        return [key for key in versions if (found := self._entries.get(key)) is None or not self._is_fresh(found)]

    def extend(self, *, since: float, at: float) -> None:
        """From one moment to the other no version has changed: what was so within is so still."""
        for _, entry in self._versioned_before(at):
            if entry.at >= since:
                entry.at = at

    def _versioned_before(self, at: float) -> list[tuple[K, _Entry[V]]]:
        with self._lock:
            entries = [(key, entry) for key, entry in self._entries.items() if entry.at <= at]
        return [(key, entry) for key, entry in entries if getattr(entry.value, "version", "")]

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._entries.clear()
