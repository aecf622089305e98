"""Where the processes of one machine count together: a folder with a few files for each of them.

Owns who is alive (a lock that ends with its process, however that ends) and what becomes of the files of
the dead: they are added up into an archive, not removed. A sum that shrinks without beginning at zero is
taken by Prometheus for a restart, and all that is left of it would be counted once more. Owns no metric.

The values live in shared memory, so a process that is killed has lost nothing. The folder is for one
machine, ideally on tmpfs: a memory-mapped file on a full disk would end the process that writes to it,
so each process reserves its space when it begins.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import struct
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from prometheus_client import Metric, values
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector

PRIVATE_PREFIX = "voicedesk-metrics-"  # gunicorn.conf.py makes such a folder when METRICS_DIR names none
PRIVATE_LEFT_SECONDS = 60.0
RESERVED_BYTES = {"counter": 64 * 1024, "histogram": 256 * 1024}
MOST_DEAD = 8  # so many are folded into the archive, at a scrape
MOST_MEMBERS = 32  # and when a process begins, for where nobody scrapes
GUARD_SECONDS = 2.0
_KINDS = tuple(RESERVED_BYTES)  # a gauge of one process says nothing once it has ended: there are none


class FolderBusy(Exception):
    """Somebody is folding and does not end."""


class Folder:
    """One folder, seen from one process, which is a member of it from its first count on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._name: str | None = None
        self._lock: int | None = None

    def join(self) -> None:
        """Let everything that is counted in this process from now on be counted here; raises OSError."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._enrol()
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(self.path)  # where the library looks
        values.ValueClass = values.MultiProcessValue(self._me)  # type: ignore[no-untyped-call]
        os.register_at_fork(after_in_child=self._leave)

    def read(self) -> list[Metric]:
        """What all processes have counted, those that have ended included. Raises FolderBusy."""
        if len(self._dead()) > MOST_DEAD:
            self.fold()
        with self._guard(fcntl.LOCK_SH):
            return _merged([*_files(self._archive()), *self._unfolded()])

    def fold(self) -> None:
        """Add the files of processes that have ended to the archive. Raises FolderBusy.

        Killed at any point it has folded all of them or none: the archive names whose counts it holds.
        """
        with self._guard(fcntl.LOCK_EX):
            dead = self._dead()
            old = self._archive()
            files = [file for file in self._unfolded() if _owner(file) in dead]
            draft = Path(tempfile.mkdtemp(prefix="draft-", dir=self.path))
            for kind in _KINDS:
                of_kind = [file for file in [*_files(old), *files] if file.name.startswith(kind)]
                archived = draft / f"{kind}_archive.db"
                _reserve(archived, RESERVED_BYTES[kind])
                _write(archived, _merged(of_kind, accumulate=False))
            (draft / "folded.json").write_text(json.dumps(sorted(dead)))
            draft.rename(self.path / f"archive-{_number(old) + 1}")
            self._tidy(dead)

    def deserted(self) -> bool:
        """Whether no other process counts here."""
        return not {file.stem for file in self.path.glob("*.member")} - self._dead() - {self._name}

    def _me(self) -> str:
        """This process among the files; asked before each count, so that a fork begins its own."""
        if self._name is None:
            self._enrol()
        assert self._name is not None
        return self._name

    def _enrol(self) -> None:
        name = f"{os.getpid()}-{secrets.token_hex(4)}"  # a number alone comes back, in containers at once
        with suppress(FolderBusy), self._guard(fcntl.LOCK_SH):  # busy: it is folding, and not likely us
            self._lock = os.open(self.path / f"{name}.member", os.O_CREAT | os.O_RDWR, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        for kind in _KINDS:
            _reserve(self.path / f"{kind}_{name}.db", RESERVED_BYTES[kind])
        self._name = name
        if len(list(self.path.glob("*.member"))) > MOST_MEMBERS:
            with suppress(FolderBusy, OSError):
                self.fold()

    def _leave(self) -> None:
        """In a forked child: the files are the parent's, and so is the lock, which closing leaves to it."""
        if self._lock is not None:
            os.close(self._lock)
        self._name = self._lock = None

    def _dead(self) -> set[str]:
        return {file.stem for file in self.path.glob("*.member") if not _is_locked(file)}

    def _archive(self) -> Path | None:
        """The newest one; what is older is left of a process that was killed while folding."""
        return max(self.path.glob("archive-*"), key=_number, default=None)

    def _unfolded(self) -> list[Path]:
        archive = self._archive()
        folded = set(json.loads((archive / "folded.json").read_text())) if archive else set()
        return [file for file in _files(self.path) if _owner(file) not in folded]

    def _tidy(self, dead: set[str]) -> None:
        for file in _files(self.path):
            if _owner(file) in dead:
                file.unlink(missing_ok=True)
        for name in dead:
            (self.path / f"{name}.member").unlink(missing_ok=True)
        newest = self._archive()
        for folder in [*self.path.glob("archive-*"), *self.path.glob("draft-*")]:
            if folder != newest:
                shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def _guard(self, how: int) -> Iterator[None]:
        """Many may read at once, one may fold; nobody waits for it for more than two seconds."""
        handle = os.open(self.path / "guard", os.O_CREAT | os.O_RDWR, 0o600)
        until = time.monotonic() + GUARD_SECONDS
        try:
            while True:
                try:
                    fcntl.flock(handle, how | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > until:
                        raise FolderBusy from None
                    time.sleep(0.005)
            yield
        finally:
            os.close(handle)


def sweep_private() -> None:
    """Remove the private folders that killed gunicorns of this user have left."""
    for path in Path(tempfile.gettempdir()).glob(f"{PRIVATE_PREFIX}*"):
        with suppress(OSError):
            status = path.stat()
            old = time.time() - status.st_mtime > PRIVATE_LEFT_SECONDS
            if status.st_uid == os.getuid() and old and Folder(path).deserted():
                shutil.rmtree(path, ignore_errors=True)


def _files(folder: Path | None) -> list[Path]:
    return sorted(file for kind in _KINDS for file in folder.glob(f"{kind}_*.db")) if folder else []


def _owner(file: Path) -> str:
    return file.stem.partition("_")[2]


def _number(archive: Path | None) -> int:
    return int(archive.name.partition("-")[2]) if archive else 0


def _is_locked(file: Path) -> bool:
    try:
        handle = os.open(file, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _reserve(file: Path, size: int) -> None:
    handle = os.open(file, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(handle, 0, size)
        else:  # macOS
            os.write(handle, bytes(size))
    finally:
        os.close(handle)


def _merged(files: list[Path], *, accumulate: bool = True) -> list[Metric]:
    sound = [str(file) for file in files if _is_sound(file)]
    return list(MultiProcessCollector.merge(sound, accumulate=accumulate))  # type: ignore[no-untyped-call]


def _is_sound(file: Path) -> bool:
    """Whether it can be read: after a power cut a file may be half of one, and must not stand for all."""
    try:
        for _ in MmapedDict.read_all_values_from_file(str(file)):  # type: ignore[no-untyped-call]
            pass
    except (RuntimeError, ValueError, OSError, IndexError, struct.error):
        return False
    return True


def _write(file: Path, metrics: Iterable[Metric]) -> None:
    store = MmapedDict(str(file))  # type: ignore[no-untyped-call]
    for metric in metrics:
        for sample in metric.samples:
            names, given = list(sample.labels), list(sample.labels.values())
            key = mmap_key(metric.name, sample.name, names, given, metric.documentation)
            store.write_value(key, sample.value, 0.0)  # type: ignore[no-untyped-call]
    store.close()  # type: ignore[no-untyped-call]
