"""Several processes kept running: started with a log each, restarted when they die, stopped in reverse.

Owns nothing of what they do. Children die with the supervisor, however it dies; what an earlier one
left behind all the same is found by its pid file and its start time, and ended.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from sandbox.children import start_child, stop_child

LOOK_SECONDS = 0.5
FIRST_BACKOFF_SECONDS = 0.5
LONGEST_BACKOFF_SECONDS = 10.0


@dataclass
class _Kept:
    command: Sequence[str]
    process: subprocess.Popen[bytes]
    backoff: float = FIRST_BACKOFF_SECONDS
    restart_at: float | None = None
    restarts: int = field(default=0)


class Supervisor:
    """Keeps named commands running, in the order in which they were started."""

    def __init__(self, folder: Path, *, env: Mapping[str, str], cwd: Path) -> None:
        self._folder = folder
        self._env = env
        self._cwd = cwd
        self._kept: dict[str, _Kept] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._pids = folder / "pids.json"
        self._end_leftovers()

    def start(self, name: str, command: Sequence[str]) -> None:
        """Start a command; its output goes to ``<name>.log``."""
        with self._lock:
            self._kept[name] = _Kept(command, self._spawn(name, command))
            self._remember()

    def watch(self) -> None:
        """Until ``stop`` is called from elsewhere (a signal handler): restart what dies, with a growing delay."""
        while not self._stopping.wait(LOOK_SECONDS):
            with self._lock:
                for name, kept in self._kept.items():
                    self._revive(name, kept)

    def watch_in_background(self) -> None:
        """The same from a thread."""
        threading.Thread(target=self.watch, name="supervisor", daemon=True).start()

    def pid(self, name: str) -> int:
        """The process id of a command, as it is just now."""
        return self._kept[name].process.pid

    def stop(self, *, seconds: float = 30.0) -> None:
        """SIGTERM to all, the last started first, and SIGKILL to those that take too long."""
        self._stopping.set()
        with self._lock:
            for kept in reversed(self._kept.values()):
                stop_child(kept.process, with_signal=signal.SIGTERM, seconds=seconds)
            self._kept.clear()
            self._pids.unlink(missing_ok=True)

    def _revive(self, name: str, kept: _Kept) -> None:
        if kept.process.poll() is None:
            return
        now = time.monotonic()
        if kept.restart_at is None:
            kept.restart_at = now + kept.backoff
            kept.backoff = min(kept.backoff * 2, LONGEST_BACKOFF_SECONDS)
        elif now >= kept.restart_at:
            kept.restart_at = None
            kept.restarts += 1
            kept.process = self._spawn(name, kept.command)
            self._remember()

    def _spawn(self, name: str, command: Sequence[str]) -> subprocess.Popen[bytes]:
        # From the thread that will live longest: the tie to the parent is a tie to the thread that starts it.
        return start_child(command, log_path=self._folder / f"{name}.log", env=self._env, cwd=self._cwd)

    def _remember(self) -> None:
        started = {}
        for name, kept in self._kept.items():
            with contextlib.suppress(psutil.NoSuchProcess):
                started[name] = [kept.process.pid, psutil.Process(kept.process.pid).create_time()]
        self._pids.write_text(json.dumps(started))

    def _end_leftovers(self) -> None:
        try:
            left = json.loads(self._pids.read_text())
        except (FileNotFoundError, ValueError):
            return
        for pid, created in left.values():
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(pid)
                if abs(process.create_time() - created) < 1.0:
                    process.terminate()
                    with contextlib.suppress(psutil.TimeoutExpired):
                        process.wait(timeout=10)
        self._pids.unlink(missing_ok=True)
