"""The peer: the same work done plainly by Express, BullMQ and pg, on the same servers.

Owns its installation (once, in a folder that git ignores) and its processes. Without Node or its packages it is
absent, and whoever asks prints NOT RUN.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from benchmarks.ground import PEER, Ground
from benchmarks.product import await_answer
from sandbox.children import start_child, stop_child
from sandbox.ports import LOOPBACK, free_port

SOURCE = Path(__file__).parent / "peer"
INSTALLED = Path(__file__).resolve().parents[1] / ".bench" / "peer"
INSTALL_SECONDS = 300
STOP_SECONDS = 10.0
TARGET = "/webhooks/vapi"
SECRET = "a-secret-of-the-peers"


def install() -> str | None:
    """Bring its packages, once. Returns why it cannot be had, or None."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        return "Node is not installed"
    INSTALLED.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", *sorted(path.name for path in SOURCE.glob("*.js"))):
        shutil.copy(SOURCE / name, INSTALLED / name)
    if (INSTALLED / "node_modules" / "bullmq").exists():
        return None
    words = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--silent"]
    done = subprocess.run(words, cwd=INSTALLED, capture_output=True, text=True, check=False, timeout=INSTALL_SECONDS)
    return None if done.returncode == 0 else "its packages cannot be installed"


class Peer:
    """The peer on the ground's servers; ``grouped``: with shared inserts and its table as the queue, without BullMQ."""

    def __init__(self, ground: Ground, *, grouped: bool = False) -> None:
        self._ground = ground
        self._grouped = grouped
        self.port = free_port()
        self.base_url = f"http://{LOOPBACK}:{self.port}"
        ground.make_peer_tables((SOURCE / "schema.sql").read_text())

    @contextmanager
    def web(self) -> Iterator[psutil.Process]:
        """One server process: Node's own way of using a core; a second one gained 1.14 x on two cores."""
        with self._running("server-grouped.js" if self._grouped else "server.js") as process:
            await_answer(f"{self.base_url}/health")
            yield process

    @contextmanager
    def worker(self) -> Iterator[psutil.Process]:
        """One worker, ten jobs at a time, or a hundred rows."""
        with self._running("worker-grouped.js" if self._grouped else "worker.js") as process:
            yield process

    def fill(self, count: int) -> None:
        """``count`` events that wait, each with its job where there are jobs."""
        self._ground.ask(
            PEER,
            "WITH new AS (INSERT INTO events (provider, event_id, payload) SELECT 'vapi', 'fill-' || n,"
            " jsonb_build_object('type', 'speech-update', 'transcript', repeat('hello ', 300))"
            f" FROM generate_series(1, {count}) n RETURNING 1) SELECT count(*) FROM new",
        )
        if not self._grouped:
            subprocess.run(["node", "fill.js"], cwd=INSTALLED, env=self._environment(), check=True, timeout=120)

    def finished(self) -> int:
        """How many events are processed."""
        return int(self._ground.ask(PEER, "SELECT count(*) FROM events WHERE status = 'processed'"))

    @contextmanager
    def _running(self, script: str) -> Iterator[psutil.Process]:
        log = self._ground.folder / f"peer-{script}.log"
        child = start_child(["node", script], log_path=log, env=self._environment(), cwd=INSTALLED)
        try:
            yield psutil.Process(child.pid)
        finally:
            stop_child(child, with_signal=signal.SIGTERM, seconds=STOP_SECONDS)

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "DATABASE_URL": self._ground.peer_url,
            "REDIS_URL": self._ground.valkey.url,
            "PORT": str(self.port),
            "SECRET": SECRET,
        }
