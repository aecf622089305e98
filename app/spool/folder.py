"""The folder: lines in, in one order for all processes of this host; lines out, in that order, by one at a time.

Owns two locks. ``order`` is held for the moment of a write, which draws a sequence number and appends, so that the
order in the files is the order of intake whichever process wrote; fsync comes after it. ``drain`` is held by the one
process that takes lines out, and can be taken from one that has fallen silent. Nobody needs to be alive for his lines
to be taken.

What is taken is noted (``progress``) after it has arrived elsewhere, without fsync: a line that is read a second time
must do no harm there. A file goes when all of it is taken.
"""

from __future__ import annotations

import heapq
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from app.spool.lines import UNPROVEN, Line, Mark, encode, read_lines
from app.spool.locks import FileLock, give_to_owner
from app.spool.segment import SUFFIX, Segment, sync_folder
from app.spool.tails import PROGRESS, Tails, Taken, list_files, read_progress, write_progress

ASIDE = "aside"
ORDER_SECONDS = 1.0  # for a write by somebody else: microseconds, unless a process was stopped in the middle
LEAST_FREE_BYTES = 1_000_000


class SpoolRefused(Exception):
    """The line could not be kept: no room, no folder, no disk. The message says which."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What is in the folder. ``oldest`` is when the first line that was not taken was written, in epoch seconds."""

    lines: int
    unproven: int
    bytes: int
    aside: int
    oldest: float | None


@dataclass(frozen=True, slots=True)
class Batch:
    """Lines in order, from the beginning of what is left, and whether that was all."""

    lines: list[Line]
    is_last: bool


class Folder:
    """One process's view of the spool folder. Thread-safe; makes nothing before the first line is kept."""

    def __init__(self, path: Path, *, most_bytes: int) -> None:
        self.path = path
        self._most_bytes = most_bytes
        self._order = FileLock(path / ".order")
        self._drain = FileLock(path / ".drain")
        self._tails = Tails(path)
        self._segment: Segment | None = None
        self._draining: int | None = None  # the drain's lock, while this process has it

    def append(self, mark: Mark, sealed: bytes, *, most_unproven: int = 0) -> None:
        """Keep a line; when this returns it is on the disk. Raises SpoolRefused.

        ``most_unproven``: how many lines of senders who were not proven there may be, this one included.
        """
        if mark.kind == UNPROVEN and self._tails.count()[1] >= most_unproven:
            raise SpoolRefused("there are as many unproven lines as may be")
        try:
            self._make()
            segment, end = self._write(mark, sealed)
            segment.settle(end)
        except OSError as error:
            raise SpoolRefused(error.strerror or type(error).__name__) from None

    def _make(self) -> None:
        if not self.path.is_dir():
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            sync_folder(self.path.parent)

    def _write(self, mark: Mark, sealed: bytes) -> tuple[Segment, int]:
        with self._order.held(within_seconds=ORDER_SECONDS) as lock:
            if lock is None:
                raise SpoolRefused("another process holds the folder")
            line = encode(_next(lock), mark, sealed)
            if self._size() + len(line) > self._most_bytes:
                raise SpoolRefused("it is as large as may be")
            if self._segment is None or not self._segment.usable:
                self._segment = Segment(self.path)
            return self._segment, self._segment.write(line)

    def is_empty(self) -> bool:
        """Whether there is no file with lines; costs one look."""
        return not list_files(self.path)

    def is_still_empty(self) -> bool:
        """Whether it is surely as empty as it was seen last; costs less than a look at what is in it."""
        return self._tails.is_still_empty()

    def holds(self, *lanes: str) -> bool:
        """Whether a line of one of these lanes is there still."""
        return self._tails.holds(*lanes)

    def contents(self) -> Contents:
        """How much there is."""
        lines, unproven = self._tails.count()
        return Contents(lines, unproven, self._size(), self._count_aside(), self._oldest() if lines else None)

    def fault(self) -> str | None:
        """Why no line could be kept just now, as far as a look tells; None when one could."""
        there = next(place for place in (self.path, *self.path.absolute().parents) if place.exists())
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            return "its folder cannot be written to"
        if not self._most_bytes:
            return "SPOOL_MAX_BYTES is 0"
        if self._size() + LEAST_FREE_BYTES > self._most_bytes:
            return "it is as large as may be"
        disk = os.statvfs(there)
        return "its disk is full" if disk.f_bavail * disk.f_frsize < LEAST_FREE_BYTES else None

    # --- taking out ------------------------------------------------------------------------------

    @contextmanager
    def draining(self, *, within_seconds: float = 0.0) -> Iterator[bool]:
        """Be the one who takes lines out; False when another is. Raises OSError."""
        if not self.path.is_dir():
            yield False
            return
        with self._drain.held(within_seconds=within_seconds) as lock:
            if lock is None:
                yield False
                return
            self._drain.unsign(lock)
            self._draining = lock
            try:
                yield True
            finally:
                self._draining = None

    def go_on(self) -> None:
        """A sign of life of who drains. Raises SpoolRefused when another has taken over: he must leave all as it is."""
        if self._draining is None or not self._drain.sign(self._draining):
            raise SpoolRefused("another process drains it now")

    def take_over(self, *, silent_seconds: float) -> bool:
        """Whether the drain was just taken away from a process that gave no sign of life for so long.

        It may come back and do once more what it was at: what it does then must do no harm.
        """
        if not self._drain.is_silent(silent_seconds):
            return False
        with self._order.held(within_seconds=ORDER_SECONDS) as lock:
            if lock is None or not self._drain.is_silent(silent_seconds):  # another was faster
                return False
            self._drain.take_away()
            return True

    def read(self, *, most: int, most_bytes: int) -> Batch:
        """The next lines, at least one where there is one. Only while draining."""
        limits = self._cut()
        taken = read_progress(self.path)
        batch: list[Line] = []
        size = 0
        with ExitStack() as stack:
            streams = [
                _lines_of(stack.enter_context(path.open("rb")), path.name, taken.get(path.name, Taken()).end, limit)
                for path, limit in limits
            ]
            for line in heapq.merge(*streams, key=lambda line: line.sequence):
                if len(batch) >= most or (batch and size + len(line.raw) > most_bytes):
                    return Batch(batch, is_last=False)
                batch.append(line)
                size += len(line.raw)
        return Batch(batch, is_last=True)

    def _cut(self) -> list[tuple[Path, int]]:
        """How far each file is to be read: taken while nobody writes, so that no line is read before an older one."""
        with self._order.held(within_seconds=ORDER_SECONDS) as lock:
            if lock is None:
                raise SpoolRefused("another process holds the folder")
            return [(self.path / name, stat.st_size) for name, stat in list_files(self.path).items()]

    def note_taken(self, lines: list[Line]) -> None:
        """These, read last, are elsewhere now. Only while draining."""
        taken = read_progress(self.path)
        for line in lines:
            before = taken.get(line.file, Taken())
            taken[line.file] = Taken(line.end, before.lines + 1, before.unproven + (line.mark.kind == UNPROVEN))
        write_progress(self.path, taken)

    def set_aside(self, lines: list[Line]) -> None:
        """Keep what nobody can make use of where it holds up nothing. Only while draining."""
        aside = self.path / ASIDE
        with aside.open("ab") as opened:
            opened.write(b"".join(line.raw for line in lines))
            opened.flush()
            os.fsync(opened.fileno())
        give_to_owner(aside)
        sync_folder(self.path)

    def take_back(self) -> int:
        """Put what was set aside among the other lines again; how many. Only while draining."""
        number = self._count_aside()
        if number:
            (self.path / ASIDE).rename(self.path / f"{ASIDE}-{time.time_ns()}{SUFFIX}")
            sync_folder(self.path)
        return number

    def remove_taken(self) -> bool:
        """Remove every file that is taken to its end; True when no line is left. Only while draining."""
        with self._order.held(within_seconds=ORDER_SECONDS) as lock:
            if lock is None:
                return False
            taken = read_progress(self.path)
            for name, stat in list_files(self.path).items():
                end = taken.get(name, Taken()).end
                if end == stat.st_size or _is_torn(self.path / name, end):
                    (self.path / name).unlink()
                    taken.pop(name, None)
            left = list_files(self.path)
            if left:
                write_progress(self.path, {name: one for name, one in taken.items() if name in left})
            else:
                (self.path / PROGRESS).unlink(missing_ok=True)
            return not left

    def rewrite(self, keep: Callable[[Line], bool]) -> int:
        """Write everything anew without the lines that are not to be kept; how many those were. Only while draining."""
        gone = 0
        with self._order.held(within_seconds=ORDER_SECONDS) as lock:
            if lock is None:
                raise SpoolRefused("another process holds the folder")
            taken = read_progress(self.path)
            paths = [self.path / name for name in list_files(self.path)]
            if (self.path / ASIDE).exists():
                paths.append(self.path / ASIDE)
            for path in paths:
                gone += _rewrite(path, taken.get(path.name, Taken()).end, keep)
        return gone

    def _size(self) -> int:
        aside = self.path / ASIDE
        return sum(stat.st_size for stat in list_files(self.path).values()) + (
            aside.stat().st_size if aside.exists() else 0
        )

    def _count_aside(self) -> int:
        try:
            with (self.path / ASIDE).open("rb") as opened:
                return sum(1 for _ in opened)
        except FileNotFoundError:
            return 0

    def _oldest(self) -> float | None:
        taken = read_progress(self.path)
        moments = []
        for name, stat in list_files(self.path).items():
            try:
                with (self.path / name).open("rb") as opened:
                    lines = read_lines(opened, name, start=taken.get(name, Taken()).end, until=stat.st_size)
                    moments += [line.kept_at for line in islice(lines, 1)]
            except FileNotFoundError:
                continue
        return min(moments, default=None)


def _lines_of(opened: BinaryIO, name: str, start: int, until: int) -> Iterator[Line]:
    return read_lines(opened, name, start=start, until=until)


def _next(lock: int) -> int:
    """A number larger than any before: the time, unless the clock was set back. Kept in the lock's own file."""
    try:
        before = int(os.pread(lock, 16, 0), 16)
    except ValueError:
        before = 0
    number = max(before + 1, time.time_ns())
    os.pwrite(lock, f"{number:016x}".encode(), 0)
    return number


def _is_torn(path: Path, end: int) -> bool:
    """Whether nothing but half a line is left: its writer died in the middle of it, so nobody was told it is kept."""
    with path.open("rb") as opened:
        opened.seek(end)
        return not opened.readline().endswith(b"\n")


def _rewrite(path: Path, start: int, keep: Callable[[Line], bool]) -> int:
    """In a new file under a new name, so that whoever has the old one open writes it no more."""
    with path.open("rb") as opened:
        lines = list(read_lines(opened, path.name, start=start, until=path.stat().st_size))
    kept = [line for line in lines if keep(line)]
    if len(kept) == len(lines):
        return 0
    fresh = path if path.name == ASIDE else path.with_name(f"kept-{time.time_ns()}{SUFFIX}")
    draft = path.with_name(".rewriting")
    draft.write_bytes(b"".join(line.raw for line in kept))
    give_to_owner(draft)
    with draft.open("rb") as opened:
        os.fsync(opened.fileno())
    draft.replace(fresh)
    if fresh != path:
        path.unlink()
    sync_folder(path.parent)
    return len(lines) - len(kept)
