"""One line of a spool file: what of it can be read without a key, and whether it is whole.

Owns the format: ``v1 SEQUENCE LANE KIND CHECKSUM SEALED``, ended by a newline. The checksum tells a line that
was torn or damaged from one whose key is missing, which is no reason to throw it away.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

PROVEN, UNPROVEN = "p", "u"
_LINE = re.compile(rb"v1 ([0-9a-f]{16}) ([0-9a-f]{16}) ([pu]) ([0-9a-f]{8}) ([A-Za-z0-9_=-]+)\n")


@dataclass(frozen=True, slots=True)
class Mark:
    """What stands in a line openly: the hash of the lane it belongs to, and whether its sender was proven."""

    lane: str
    kind: str = PROVEN


@dataclass(frozen=True, slots=True)
class Line:
    """A line as it was read. ``sealed`` is None when it is damaged: ``raw`` is all there is then."""

    file: str
    end: int
    sequence: int
    mark: Mark
    sealed: bytes | None
    raw: bytes

    @property
    def kept_at(self) -> float:
        """Seconds since the epoch at which it was written: a sequence is that moment, in nanoseconds."""
        return self.sequence / 1e9


def encode(sequence: int, mark: Mark, sealed: bytes) -> bytes:
    """The line, newline included."""
    open_part = f"v1 {sequence:016x} {mark.lane} {mark.kind}".encode()
    return b"%b %08x %b\n" % (open_part, zlib.crc32(sealed, zlib.crc32(open_part)), sealed)


def read_lines(opened: BinaryIO, file: str, *, start: int, until: int) -> Iterator[Line]:
    """The whole lines between two places of a file; what is torn at the end is no line."""
    opened.seek(start)
    place, before = start, 0
    while place < until:
        raw = opened.readline(until - place)
        if not raw.endswith(b"\n"):
            return
        place += len(raw)
        line = _decode(raw, file, place, before)
        before = line.sequence
        yield line


def _decode(raw: bytes, file: str, end: int, before: int) -> Line:
    found = _LINE.fullmatch(raw)
    if found is not None:
        sequence, lane, kind, checksum, sealed = found.groups()
        if zlib.crc32(sealed, zlib.crc32(raw[: found.end(3)])) == int(checksum, 16):
            return Line(file, end, int(sequence, 16), Mark(lane.decode(), kind.decode()), sealed, raw)
    return Line(file, end, before, Mark("0" * 16), None, raw)  # in its place: right behind the one before it
