"""Where a test process's cluster lies: in the machine's memory, where that has room for it.

Each test has a database of its own, a copy of 350 files that is deleted afterwards. On a disk that takes 20 ms on a
good day, and 300 beside somebody who waits for the disk. Owns the folder, and removing what killed runs have left.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from sandbox.unprivileged import MEMORY

ROOM = 4 * 2**30  # bytes free; three test processes take less than one
PREFIX = "voicedesk-tests-"


@contextmanager
def folder_in_memory() -> Iterator[Path | None]:
    """A folder that is gone afterwards; None where there is no such place, or too little of it."""
    if not _has_room():
        yield None
        return
    _remove_leftovers()
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=MEMORY))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _has_room() -> bool:
    try:
        free = shutil.disk_usage(MEMORY).free
    except OSError:
        return False
    return os.access(MEMORY, os.W_OK) and min(free, psutil.virtual_memory().available) > ROOM


def _remove_leftovers() -> None:
    for folder in MEMORY.glob(f"{PREFIX}*"):
        if not psutil.pid_exists(int(folder.name.removeprefix(PREFIX).partition("-")[0])):
            shutil.rmtree(folder, ignore_errors=True)  # another user's stays
