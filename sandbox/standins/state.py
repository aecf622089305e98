"""What the outside world remembers: one tree of plain JSON, in memory and, when wanted, in a file.

Owns the lock and the file. Knows nothing of any provider: each keeps its own branch and its shape.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


class State:
    """The tree, guarded by one lock. ``path`` is where it is written after each change (None: nowhere)."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._lock = threading.RLock()
        self._branches: dict[str, dict[str, Any]] = {}
        if path is not None and path.exists():
            self._branches = json.loads(path.read_text(encoding="utf-8"))

    @contextmanager
    def reading(self, branch: str) -> Iterator[dict[str, Any]]:
        """Hold the lock and look at one provider's branch; do not change it."""
        with self._lock:
            yield self._branches.setdefault(branch, {})

    @contextmanager
    def changing(self, branch: str) -> Iterator[dict[str, Any]]:
        """Hold the lock and change one provider's branch; it is on disk when the block ends.

        Refuse (raise) before the first change: nothing is rolled back.
        """
        with self._lock:
            yield self._branches.setdefault(branch, {})
            self._write()

    def forget(self) -> None:
        """Drop everything, in the file too."""
        with self._lock:
            self._branches.clear()
            self._write()

    def _write(self) -> None:
        if self._path is None:
            return
        draft = self._path.with_name(self._path.name + ".new")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(self._branches, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, self._path)


def now() -> datetime:
    """The present moment, aware, in UTC."""
    return datetime.now(UTC)
