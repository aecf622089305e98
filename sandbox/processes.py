"""Several services kept running: started in order, restarted when they die, stopped in reverse.

Owns nothing of what they do. Children die with the supervisor, however it dies (sandbox/children.py);
what one left behind all the same is found by pid *and* start time at the next start, and ended. One
folder has one supervisor at a time.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

import psutil

from sandbox.children import Child, await_gone, family_of, kill_all, session_of, signal_all, start_child, stop_child

LOOK_SECONDS = 0.25
FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 10.0
STEADY_SECONDS = 30.0  # who has run this long begins again with the shortest delay
STOP_SECONDS = 30.0
LEFTOVER_SECONDS = 10.0
SAME_START_SECONDS = 2.0


class Service(Protocol):
    """What can be kept running. ``start`` after a death starts it anew; ``stop`` when it is dead tidies up."""

    @property
    def pid(self) -> int: ...  # noqa: D102
    def is_running(self) -> bool: ...  # noqa: D102
    def start(self) -> None: ...  # noqa: D102
    def stop(self) -> None: ...  # noqa: D102


class Command:
    """A command line as a service, its output appended to a log."""

    def __init__(self, words: Sequence[str], *, log_path: Path, env: Mapping[str, str], cwd: Path) -> None:
        self._words = words
        self.log_path = log_path
        self._env = env
        self._cwd = cwd
        self._process: Child | None = None

    @property
    def pid(self) -> int:
        """The process id of the one that runs or ran last."""
        assert self._process is not None, "not started"
        return self._process.pid

    def is_running(self) -> bool:
        """Whether it has been started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it, and first end what a dead one has left; raises OSError when there is no such program."""
        self.stop()
        self._process = start_child(self._words, log_path=self.log_path, env=self._env, cwd=self._cwd)

    def stop(self) -> None:
        """SIGTERM, and after 30 seconds SIGKILL; its children end with it."""
        if self._process is not None:
            stop_child(self._process, with_signal=signal.SIGTERM, seconds=STOP_SECONDS)


@dataclass
class _Kept:
    service: Service
    started_at: float
    delay: float = FIRST_DELAY_SECONDS
    restart_at: float | None = None


class Supervisor:
    """Keeps named services running. Raises RuntimeError when another supervisor has the folder.

    ``tell`` is called, from the watching thread, with a sentence about each death and restart.
    """

    def __init__(self, folder: Path, *, tell: Callable[[str], None] = lambda _: None) -> None:
        self._tell = tell
        self._kept: dict[str, _Kept] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._watcher: threading.Thread | None = None
        self._pids = folder / "pids.json"
        self._claim = _claim_folder(folder)
        _end_leftovers(self._pids)

    def start(self, name: str, service: Service) -> None:
        """Start a service and keep it; the first call begins the watch. Returns when ``service.start`` does."""
        with self._lock:
            # Kept before it is started: also a start that a signal interrupts is stopped by ``stop``.
            self._kept[name] = _Kept(service, time.monotonic())
            service.start()
            self._remember()
        if self._watcher is None:
            self._watcher = threading.Thread(target=self._watch, name="supervisor", daemon=True)
            self._watcher.start()

    def leave(self, name: str) -> None:
        """Keep a service no more: whatever becomes of it now, it is not started again, and not stopped."""
        with self._lock:
            self._kept.pop(name, None)
            self._remember()

    def stop(self) -> None:
        """Stop all, the last started first; each has its own bound, and none is left out when another fails."""
        self._stopping.set()
        with self._lock, contextlib.ExitStack() as last_first:
            last_first.callback(self._claim.close)
            last_first.callback(self._pids.unlink, missing_ok=True)
            for kept in self._kept.values():
                last_first.callback(kept.service.stop)

    def _watch(self) -> None:
        while not self._stopping.wait(LOOK_SECONDS):
            with self._lock:
                for name, kept in self._kept.items():
                    if not self._stopping.is_set() and not kept.service.is_running():
                        self._revive(name, kept)

    def _revive(self, name: str, kept: _Kept) -> None:
        now = time.monotonic()
        if kept.restart_at is None:
            if now - kept.started_at > STEADY_SECONDS:
                kept.delay = FIRST_DELAY_SECONDS
            kept.restart_at = now + kept.delay
            kept.delay = min(kept.delay * 2, LONGEST_DELAY_SECONDS)
        elif now >= kept.restart_at:
            kept.restart_at = None
            kept.started_at = now
            try:
                kept.service.start()
            except (RuntimeError, OSError) as error:
                self._tell(f"{name} died and does not start: {error}")
                return
            self._remember()
            self._tell(f"{name} died and was started again")

    def _remember(self) -> None:
        started = {}
        for name, kept in self._kept.items():
            with contextlib.suppress(psutil.NoSuchProcess):
                if kept.service.is_running():
                    started[name] = [kept.service.pid, psutil.Process(kept.service.pid).create_time()]
        draft = self._pids.with_suffix(".new")
        draft.write_text(json.dumps(started))
        draft.replace(self._pids)


def _claim_folder(folder: Path) -> IO[str]:
    """A lock that ends with this process, however it ends; the file says whose it is."""
    file = open(folder / "supervisor.lock", "a+")  # noqa: SIM115 - held as long as the supervisor lives
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        owner = file.read().strip()
        file.close()
        raise RuntimeError(f"process {owner or 'unknown'} already runs what is in {folder}") from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def _end_leftovers(pids: Path) -> None:
    try:
        left = json.loads(pids.read_text())
    except (FileNotFoundError, ValueError):
        return
    for pid, created in reversed(left.values()):
        try:
            if abs(psutil.Process(pid).create_time() - created) > SAME_START_SECONDS:
                continue  # the number belongs to another program by now
        except psutil.NoSuchProcess:
            pass  # those it had started may still be there, in its session
        family = [*family_of(pid), *session_of(pid)]
        signal_all(family, signal.SIGTERM)
        signal_all(family, signal.SIGCONT)
        if not await_gone(family, seconds=LEFTOVER_SECONDS):
            kill_all(family)
    pids.unlink(missing_ok=True)
