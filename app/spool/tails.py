"""What of all files has not been taken yet, as this process knows it: which lanes, how many lines.

Owns an index that follows the files by reading what was added to them, so that asking it costs a look at the folder
and not at the lines.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from app.spool.lines import UNPROVEN, read_lines
from app.spool.locks import give_to_owner
from app.spool.segment import SUFFIX

PROGRESS = "progress"
TICK_NS = 1_000_000_000  # far beyond what a file system's clock takes for one step


@dataclass(frozen=True, slots=True)
class Taken:
    """How far a file has been taken elsewhere: up to which byte, and how many lines that were."""

    end: int = 0
    lines: int = 0
    unproven: int = 0


@dataclass(slots=True)
class _Tail:
    inode: int
    read: int = 0
    lines: int = 0
    unproven: int = 0
    lanes: dict[str, int] = field(default_factory=dict)  # where the last line of each ends


class Tails:
    """The index of one process. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tails: dict[str, _Tail] = {}
        self._taken: dict[str, Taken] = {}
        self._lock = threading.Lock()
        self._empty_since: int | None = None  # the folder's own time of change when no file was in it

    def holds(self, *lanes: str) -> bool:
        """Whether a line of one of these lanes has not been taken."""
        found = {} if self.is_still_empty() else self._list()
        if not found:
            return False
        with self._lock:
            self._follow(found)
            return any(
                tail.lanes.get(lane, 0) > self._taken.get(name, Taken()).end
                for name, tail in self._tails.items()
                for lane in lanes
            )

    def count(self) -> tuple[int, int]:
        """How many lines have not been taken, and how many of them are of senders who were not proven."""
        with self._lock:
            self._follow(list_files(self._folder))
            lines = sum(max(0, tail.lines - self._taken.get(name, Taken()).lines) for name, tail in self._tails.items())
            unproven = sum(
                max(0, tail.unproven - self._taken.get(name, Taken()).unproven) for name, tail in self._tails.items()
            )
            return lines, unproven

    def is_still_empty(self) -> bool:
        """Whether no file came since it was seen empty, by the folder's time alone, which changes with each file."""
        try:
            return os.stat(self._folder).st_mtime_ns == self._empty_since
        except FileNotFoundError:
            return True

    def _list(self) -> dict[str, os.stat_result]:
        """The files; that there are none is remembered, unless one could come within the same tick of that clock."""
        try:
            changed = os.stat(self._folder).st_mtime_ns
        except FileNotFoundError:
            return {}
        found = list_files(self._folder)
        if not found and time.time_ns() - changed > TICK_NS:
            self._empty_since = changed
        return found

    def _follow(self, found: Mapping[str, os.stat_result]) -> None:
        """The files first, then how far they are taken: what is taken meanwhile counts as there, never the reverse."""
        for name in self._tails.keys() - found.keys():
            del self._tails[name]
        for name, stat in found.items():
            tail = self._tails.get(name)
            if tail is None or tail.inode != stat.st_ino:
                tail = self._tails[name] = _Tail(stat.st_ino)
            if stat.st_size > tail.read:
                _read_on(tail, self._folder / name, until=stat.st_size)
        self._taken = read_progress(self._folder)


def _read_on(tail: _Tail, path: Path, *, until: int) -> None:
    try:
        with path.open("rb") as opened:
            for line in read_lines(opened, path.name, start=tail.read, until=until):
                tail.read = line.end
                tail.lines += 1
                tail.unproven += line.mark.kind == UNPROVEN
                tail.lanes[line.mark.lane] = line.end
    except FileNotFoundError:
        return  # taken whole, meanwhile


def list_files(folder: Path) -> dict[str, os.stat_result]:
    """The files with lines, by name."""
    found = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith(SUFFIX):
                    try:
                        found[entry.name] = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue  # taken whole, meanwhile
    except FileNotFoundError:
        return {}
    return found


def read_progress(folder: Path) -> dict[str, Taken]:
    """How far each file has been taken; nothing where that was lost, which costs a look and repeats nothing."""
    try:
        kept = orjson.loads((folder / PROGRESS).read_bytes())
        return {name: Taken(*numbers) for name, numbers in kept.items()}
    except (FileNotFoundError, orjson.JSONDecodeError, AttributeError, TypeError):
        return {}


def write_progress(folder: Path, taken: Mapping[str, Taken]) -> None:
    """Replace what is known of the progress, in one step; only who holds the drain's lock may."""
    fresh = folder / f"{PROGRESS}.new"
    fresh.write_bytes(orjson.dumps({name: [one.end, one.lines, one.unproven] for name, one in taken.items()}))
    give_to_owner(fresh)
    fresh.replace(folder / PROGRESS)
