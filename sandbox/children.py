"""Child processes that do not outlive their parent. Owns how a server of the sandbox is started and ended."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def start_child(
    command: Sequence[str | Path],
    *,
    log_path: Path,
    env: Mapping[str, str] | None = None,
    cwd: str | Path = "/",
    death_signal: signal.Signals = signal.SIGTERM,
    **identity: Any,
) -> subprocess.Popen[bytes]:
    """Start in a session of its own, output to a log; it is signalled when this process dies, however it dies."""
    parent = os.getpid()

    def tie_to_parent() -> None:
        if _libc is not None:
            _libc.prctl(PR_SET_PDEATHSIG, int(death_signal))
            if os.getppid() != parent:  # the parent died before the tie held
                os._exit(1)

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


def stop_child(process: subprocess.Popen[bytes], *, with_signal: signal.Signals, seconds: float) -> None:
    """Ask it to end, and make it end after ``seconds``."""
    if process.poll() is not None:
        return
    process.send_signal(with_signal)
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=10)
