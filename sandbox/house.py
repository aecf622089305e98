"""The product's own processes, each killable: web, worker and scheduler, as production starts them.

Owns how they are started, signalled and found again. Servers and stand-ins are whoever's who makes one:
a test's house (tests/e2e/house.py) and that of the fault suite (chaos/house.py) differ in these.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import requests

from sandbox.children import await_gone, family_of, signal_all
from sandbox.ports import LOOPBACK
from sandbox.processes import Command, Service, Supervisor

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
READY_SECONDS = 60.0
MIGRATE_SECONDS = 120
LOOK_SECONDS = 0.1
GONE_SECONDS = 10.0


class Processes:
    """What runs of the product, by name; each is started again when it dies, until it is kept down.

    ``environment`` holds the settings. A ``prefix`` stands before a command (``ip netns exec ...``).
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.environment = dict(environment)
        self._folder = folder
        self._supervisor = Supervisor(folder)
        self._commands: dict[str, Service] = {}

    def migrate(self) -> None:
        """Bring the database to the newest form. Raises CalledProcessError."""
        words = [sys.executable, "-m", "flask", "--app", "wsgi", "db", "upgrade"]
        subprocess.run(words, env=self.environment, cwd=ROOT, check=True, capture_output=True, timeout=MIGRATE_SECONDS)

    def start_web(self, name: str = "web", *, port: int, prefix: Sequence[str] = (), **more: str) -> None:
        """gunicorn at the port; returns at once. ``more`` are variables of this process alone."""
        words = [str(BIN / "gunicorn"), "-c", "gunicorn.conf.py", "wsgi:app"]
        self.start(name, [*prefix, *words], PORT=str(port), **more)

    def start_worker(self, name: str = "worker", *, redis_url: str, prefix: Sequence[str] = (), **more: str) -> None:
        """An RQ worker."""
        words = ["worker", "--url", redis_url, "--worker-class", "workers.Worker", "voicedesk"]
        self.start(name, [*prefix, str(BIN / "rq"), *words], **more)

    def start_scheduler(self, name: str = "scheduler", **more: str) -> None:
        """A scheduler; of several one works."""
        self.start(name, [sys.executable, "-m", "workers.scheduler"], **more)

    def start(self, name: str, words: Sequence[str], **more: str) -> None:
        """Any command, its output appended to ``<name>.log``."""
        environment = {**self.environment, **more}
        self.keep(name, Command(words, log_path=self.log_path(name), env=environment, cwd=ROOT))

    def keep(self, name: str, service: Service) -> None:
        """Start a service and keep it running under this name."""
        self._commands[name] = service
        self._supervisor.start(name, service)

    def names(self) -> list[str]:
        """All that were started, those kept down included."""
        return list(self._commands)

    def pid(self, name: str) -> int:
        """The process id of the one that runs or ran last."""
        return self._commands[name].pid

    def is_running(self, name: str) -> bool:
        """Whether it is there; a frozen one is."""
        return self._commands[name].is_running()

    def kill(self, name: str) -> None:
        """SIGKILL to a command and everything it has started; it is started again."""
        self.signal(name, signal.SIGKILL)

    def keep_down(self, name: str) -> None:
        """SIGKILL, for good; returns when it is gone."""
        self._supervisor.leave(name)
        family = family_of(self.pid(name))
        signal_all(family, signal.SIGKILL)
        await_gone(family, seconds=GONE_SECONDS)

    def freeze(self, name: str) -> None:
        """SIGSTOP: it lives and does nothing until ``thaw``."""
        self.signal(name, signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """Let it go on."""
        self.signal(name, signal.SIGCONT)

    def signal(self, name: str, number: signal.Signals, *, alone: bool = False) -> None:
        """A signal to a command and all it has started, or to the command alone."""
        family = family_of(self.pid(name))
        signal_all(family[:1] if alone else family, number)

    def log_path(self, name: str) -> Path:
        """Where what it says is appended."""
        return self._folder / f"{name}.log"

    def stop(self) -> None:
        """Stop all, the last started first."""
        self._supervisor.stop()


def is_ready(port: int, *, host: str = LOOPBACK) -> bool:
    """Whether a web process there can take a webhook."""
    try:
        return requests.get(f"http://{host}:{port}/health/ready", timeout=2).status_code == 200
    except requests.RequestException:
        return False


def await_ready(port: int, *, host: str = LOOPBACK, seconds: float = READY_SECONDS) -> None:
    """Wait for that. Raises RuntimeError when the time is up."""
    deadline = time.monotonic() + seconds
    while not is_ready(port, host=host):
        if time.monotonic() > deadline:
            raise RuntimeError(f"no web process is ready at port {port} after {seconds:.0f} s")
        time.sleep(LOOK_SECONDS)
