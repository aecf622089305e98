"""The one file that this process writes: lines go in whole or not at all, and are on the disk when that is said.

Owns writing and fsync. Threads that write at the same time share one fsync. A file in which either has failed is
never written again: what stands in it is still read.
"""

from __future__ import annotations

import os
import secrets
import threading
from pathlib import Path

from app.spool.locks import give_to_owner

SUFFIX = ".lines"


class Segment:
    """One file of one process. ``write`` is called under the folder's lock, ``settle`` outside it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / f"{os.getpid()}-{secrets.token_hex(4)}{SUFFIX}"
        self.pid = os.getpid()
        self.broken = False
        self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        give_to_owner(self.path)
        self._written = 0
        self._settled = 0
        self._settling = threading.Lock()
        sync_folder(folder)

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)

    @property
    def usable(self) -> bool:
        """Whether more may be written: nothing failed, it was not taken away, and it is no parent's."""
        return not self.broken and self.pid == os.getpid() and os.fstat(self._descriptor).st_nlink > 0

    def write(self, line: bytes) -> int:
        """Add the line; where it ends. Raises OSError, and then the file is as it was, or written no more."""
        try:
            if os.write(self._descriptor, line) != len(line):
                raise OSError(28, "No space left on device")  # the rest of it would say so
        except OSError:
            self._cut_back()
            raise
        self._written += len(line)
        return self._written

    def settle(self, end: int) -> None:
        """Return when all up to ``end`` is on the disk. Raises OSError; then nobody knows what is."""
        with self._settling:
            if self.broken:
                raise OSError(5, "Input/output error")
            if self._settled >= end:
                return
            reached = self._written
            try:
                os.fsync(self._descriptor)
            except OSError:
                self.broken = True  # a second fsync would say yes although the first has lost pages
                raise
            self._settled = reached

    def _cut_back(self) -> None:
        try:
            os.ftruncate(self._descriptor, self._written)
        except OSError:
            self.broken = True


def sync_folder(folder: Path) -> None:
    """A file's name is on the disk when its folder is."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
