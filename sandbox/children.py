"""Child processes that do not outlive their parent. Owns how one is started, ended, and found gone.

On Linux the kernel signals a child when the *thread* that started it ends; so one thread of this
process, which never ends, starts them all, and a server may be restarted from any short-lived thread.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import psutil

PR_SET_PDEATHSIG = 1
START_SECONDS = 30.0
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

Child = subprocess.Popen[bytes]
_Order = tuple[Callable[[], Child], "Future[Child]"]


class _Launcher:
    """The thread that starts all children of this process; begun anew after a fork."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._orders: queue.SimpleQueue[_Order] = queue.SimpleQueue()
        self._pid = 0

    def launch(self, start: Callable[[], Child]) -> Child:
        with self._lock:
            if self._pid != os.getpid():
                self._pid, self._orders = os.getpid(), queue.SimpleQueue()
                threading.Thread(target=self._run, args=(self._orders,), name="launcher", daemon=True).start()
        answer: Future[Child] = Future()
        self._orders.put((start, answer))
        try:
            return answer.result(timeout=START_SECONDS)
        except BaseException:  # a signal came while waiting: nobody will know the child, so it must not live
            answer.add_done_callback(_kill_unwanted)
            raise

    @staticmethod
    def _run(orders: queue.SimpleQueue[_Order]) -> None:
        while True:
            start, answer = orders.get()
            try:
                answer.set_result(start())
            except BaseException as error:  # noqa: BLE001 - raised again where the child was asked for
                answer.set_exception(error)


def _kill_unwanted(answer: Future[Child]) -> None:
    if answer.exception() is None:
        answer.result().kill()


_launcher = _Launcher()


def start_child(
    command: Sequence[str | Path],
    *,
    log_path: Path,
    env: Mapping[str, str] | None = None,
    cwd: str | Path = "/",
    death_signal: signal.Signals = signal.SIGTERM,
    **identity: Any,
) -> Child:
    """Start in a session of its own, output to a log; it is signalled when this process dies, however it dies.

    ``identity`` goes to Popen (user, group, extra_groups). Raises OSError when it cannot be started.
    """
    parent = os.getpid()

    def tie_to_parent() -> None:
        if _libc is not None:
            _libc.prctl(PR_SET_PDEATHSIG, int(death_signal))
            if os.getppid() != parent:  # the parent died before the tie held
                os._exit(1)

    def start() -> Child:
        with log_path.open("ab") as log:
            return subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env=dict(env) if env is not None else None,
                start_new_session=True,
                preexec_fn=tie_to_parent,
                **identity,
            )

    return _launcher.launch(start)


def stop_child(process: Child, *, with_signal: signal.Signals, seconds: float) -> None:
    """Ask it to end, frozen or not; after ``seconds`` make it end. Nothing that it started is left."""
    if process.poll() is None:
        family = family_of(process.pid)
        process.send_signal(with_signal)
        signal_all(family, signal.SIGCONT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=seconds)
        kill_all([*family, *session_of(process.pid)])
        process.wait(timeout=10)
    else:
        kill_all(session_of(process.pid))


def family_of(pid: int) -> list[psutil.Process]:
    """The process and all that descend from it, itself first; empty when it is gone."""
    try:
        head = psutil.Process(pid)
        return [head, *head.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def session_of(pid: int) -> list[psutil.Process]:
    """All of the session that this process leads or has led: those it started stay in it when it has died."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(OSError):
            if os.getsid(process.pid) == pid:
                found.append(process)
    return found


def signal_all(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    """Signal each that still exists; psutil checks that a pid was not given to another meanwhile."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def kill_all(processes: Iterable[psutil.Process], *, seconds: float = 10.0) -> None:
    """SIGKILL, in the order given, and wait until they are gone."""
    processes = list(processes)
    signal_all(processes, signal.SIGKILL)
    if not await_gone(processes, seconds=seconds):
        raise RuntimeError(f"processes {[process.pid for process in processes if is_alive(process)]} do not end")


def await_gone(processes: Iterable[psutil.Process], *, seconds: float) -> bool:
    """Wait until all have ended; False when the time is up first."""
    processes, deadline = list(processes), time.monotonic() + seconds
    while any(is_alive(process) for process in processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def is_alive(process: psutil.Process) -> bool:
    """Whether it runs. A zombie does not: in a container nobody may ever reap it."""
    try:
        return process.is_running() and process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False
