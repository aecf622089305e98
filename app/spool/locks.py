"""A lock between the processes of this host that dies with whoever holds it.

Owns ``flock``, its bound, and its traps: it belongs to the open file, so threads need a lock of their own and a
forked child must open the file anew; and a process that is stopped and not dead holds it for as long as it likes.
Whoever holds it for long therefore gives signs of life, and from one who gave some and has fallen silent it can be
taken away: he finds that out with his next sign.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOOK_AGAIN_SECONDS = 0.002


class FileLock:
    """One lock by its path. Raises OSError where the file cannot be opened."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._threads = threading.Lock()
        self._opened: tuple[int, int] | None = None  # pid, file descriptor

    @contextmanager
    def held(self, *, within_seconds: float) -> Iterator[int | None]:
        """The lock's own file, open, while it is held; None when it could not be had in time."""
        until = time.monotonic() + within_seconds
        if not self._threads.acquire(timeout=within_seconds):
            yield None
            return
        try:
            while (descriptor := self._try()) is None:
                if time.monotonic() >= until:
                    yield None
                    return
                time.sleep(LOOK_AGAIN_SECONDS)
            try:
                yield descriptor
            finally:
                fcntl.flock(descriptor, fcntl.LOCK_UN)
        finally:
            self._threads.release()

    def sign(self, descriptor: int) -> bool:
        """A sign of life of who holds it; False when it was taken away from him."""
        os.pwrite(descriptor, b"%020.3f" % time.monotonic(), 0)  # of the host: the same for all processes
        return _is_same(descriptor, self._path)

    def unsign(self, descriptor: int) -> None:
        """Who holds it from here on has given no sign yet."""
        os.ftruncate(descriptor, 0)

    def is_silent(self, seconds: float) -> bool:
        """Whether the last sign of life of who holds it, or held it last, is so long ago; not if he gave none."""
        try:
            return time.monotonic() - float(self._path.read_bytes()) > seconds
        except (FileNotFoundError, ValueError):
            return False

    def take_away(self) -> None:
        """Whoever holds it holds a file that has no name any more; all others meet at a new one."""
        self._path.unlink(missing_ok=True)

    def _try(self) -> int | None:
        descriptor = self._descriptor()
        if not _lock(descriptor):
            return None
        if _is_same(descriptor, self._path):
            return descriptor
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # taken away between opening and locking it
        return None

    def _descriptor(self) -> int:
        """Open, and still the file that has this name: a folder may have been made anew."""
        if self._opened is not None:
            pid, descriptor = self._opened
            if pid == os.getpid() and _is_same(descriptor, self._path):
                return descriptor
            os.close(descriptor)  # in a child: its own copy of it
            self._opened = None
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        give_to_owner(self._path)
        self._opened = (os.getpid(), descriptor)
        return descriptor


def give_to_owner(path: Path) -> None:
    """What root makes by hand belongs to whoever owns the folder, who must be able to use it afterwards."""
    if os.geteuid() == 0:
        folder = path.parent.stat()
        os.chown(path, folder.st_uid, folder.st_gid)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_same(descriptor: int, path: Path) -> bool:
    try:
        there, here = path.stat(), os.fstat(descriptor)
    except OSError:
        return False
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)
