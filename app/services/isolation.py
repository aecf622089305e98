"""A process of its own for a delivery that may kill the process it runs in.

Owns the nursery (``isolated_attempt.py``): one child that has imported everything and forks once for each
such delivery, so that a dozen of them cost one start and not twelve; the time limit of each fork, and the end
of all with a parent that leaves. The lane stays with the parent, which keeps renewing it; the fork only makes
the attempt.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from itertools import count
from pathlib import Path

from app.config import Settings, environment_of
from app.models.lanes import ClaimedLane
from app.observability.logging import get_logger

ROOT = Path(__file__).resolve().parents[2]  # where wsgi.py is, wherever this process was started
GONE_SECONDS = 5.0  # until it says that what was killed is gone

log = get_logger(__name__)


class Alone(Enum):
    """What became of an attempt in a process of its own."""

    FINISHED = 0  # the delivery is
    NOT_FINISHED = 3  # it told why, as any attempt does, or the lane had passed to another
    DIED = 1  # or outstayed its limit
    NOT_STARTED = 2  # nothing can be said of the delivery


@dataclass
class _Attempt:
    pid: int | None = None
    exit_code: int | None = None
    begun: threading.Event = field(default_factory=threading.Event)  # or will not begin
    ended: threading.Event = field(default_factory=threading.Event)


class _NurseryGone(Exception):
    """It ended before it took the order: it does so when nothing was asked of it for a while."""


def run_isolated(settings: Settings, lane: ClaimedLane, delivery_id: int) -> Alone:
    """Attempt the delivery in a process of its own; one that outstays its limit, which its start counts for, is killed.

    Within that limit in any case: our own process would be taken for stuck.
    """
    until = time.monotonic() + settings.handler_limit_seconds
    order = {"org_id": str(lane.org_id), "lane_key": lane.lane_key, "token": lane.token, "delivery_id": delivery_id}
    attempt = _begin(settings, order, until)
    if attempt is None or attempt.pid is None:
        log.error("isolated.not_started", delivery_id=delivery_id)
        return Alone.NOT_STARTED
    if not attempt.ended.wait(max(0.0, until - time.monotonic())):
        log.error("isolated.overdue", delivery_id=delivery_id)
        _kill(attempt.pid)
        attempt.ended.wait(GONE_SECONDS)
        return Alone.DIED
    if attempt.exit_code is None:
        return Alone.NOT_STARTED
    if attempt.exit_code in (Alone.FINISHED.value, Alone.NOT_FINISHED.value):
        return Alone(attempt.exit_code)
    log.error("isolated.died", delivery_id=delivery_id, exit_code=attempt.exit_code)
    return Alone.DIED


def end_all() -> None:
    """Kill every child that runs: their lanes are given away, and whoever takes one must not find it at work."""
    for nursery in list(_nurseries):
        nursery.kill()


class _Nursery:
    """The child that forks, as its parent sees it. One thread here listens to what it tells."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._made_for = ROOT, environment
        self._numbers = count(1)
        self._attempts: dict[int, _Attempt] = {}
        self._lock = threading.Lock()
        self._gone = False
        self._process = subprocess.Popen(
            [sys.executable, "-m", "flask", "--app", "wsgi", "deliver-isolated"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,  # what it tells; its log lines go where ours go
        )
        threading.Thread(target=self._listen, name="isolation", daemon=True).start()

    def serves(self, environment: dict[str, str]) -> bool:
        return not self._gone and self._made_for == (ROOT, environment)

    def begin(self, order: dict[str, object], within_seconds: float) -> _Attempt:
        """Have a process forked for the order; returns when it runs, or cannot. Raises _NurseryGone."""
        attempt = _Attempt()
        with self._lock:
            if self._gone or self._process.stdin is None:
                raise _NurseryGone
            number = next(self._numbers)
            self._attempts[number] = attempt
            try:
                self._process.stdin.write(json.dumps({"number": number, **order}).encode() + b"\n")
                self._process.stdin.flush()
            except OSError:
                self._gone = True  # whoever listens to it may not have noticed yet
                raise _NurseryGone from None
        if not attempt.begun.wait(max(0.0, within_seconds)):
            self.kill()
        if self._gone and attempt.pid is None:
            raise _NurseryGone
        return attempt

    def dismiss(self) -> None:
        """Ask nothing more of it: it ends when what it has forked has ended."""
        with self._lock, suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()
            self._process.stdin = None

    def kill(self) -> None:
        """It and what it has forked, which it has not reaped yet: so these numbers are nobody else's."""
        self._gone = True
        for attempt in list(self._attempts.values()):
            if attempt.pid is not None:
                _kill(attempt.pid)
        self._process.kill()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told = json.loads(line)
            attempt = self._attempts[told["number"]]
            attempt.pid = told.get("pid", attempt.pid)
            if "pid" not in told:
                attempt.exit_code = told["exit_code"]
                del self._attempts[told["number"]]
                attempt.ended.set()
            attempt.begun.set()
        with self._lock:
            self._gone = True
        self._process.wait()
        _nurseries.discard(self)
        for attempt in self._attempts.values():
            if attempt.pid is not None:
                _kill(attempt.pid)  # nobody watches it any more
            attempt.begun.set()
            attempt.ended.set()


_nurseries: set[_Nursery] = set()
_current: _Nursery | None = None
_starting = threading.Lock()


def _begin(settings: Settings, order: dict[str, object], until: float) -> _Attempt | None:
    """Ask for a process; twice, because the nursery may just have gone for want of work. None: there is no way."""
    for _ in range(2):
        with suppress(_NurseryGone, OSError):
            return _nursery(environment_of(settings)).begin(order, until - time.monotonic())
    return None


def _nursery(environment: dict[str, str]) -> _Nursery:
    """The one that there is, if it runs with these settings; else a new one. Raises OSError."""
    global _current
    with _starting:
        if _current is not None and _current.serves(environment):
            return _current
        if _current is not None:
            _current.dismiss()
        _current = _Nursery(environment)
        _nurseries.add(_current)
        return _current


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
