"""A whole installation for one test: servers, stand-ins and the product's own processes, each killable."""

from __future__ import annotations

import atexit
import shutil
import signal
import tempfile
from collections.abc import Sequence
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import redis
import requests
from cryptography.fernet import Fernet
from rq import Worker
from sqlalchemy import text

from app.config import Settings, environment_of
from app.services.platform import Platform
from sandbox.house import BIN as BIN  # known to tests by this name
from sandbox.house import ROOT as ROOT
from sandbox.house import Processes, is_ready
from sandbox.ports import free_port
from sandbox.postgres import EmbeddedPostgres, create_roles_and_database
from sandbox.standins import RemoteWorld
from sandbox.valkey import EmbeddedValkey
from tests.conftest import Urls, make_settings, migrate
from tests.eventually import eventually

DATABASE = "voicedesk"
WITHOUT_FSYNC = {"fsync": "off"}


@cache
def _migrated_cluster() -> EmbeddedPostgres:
    """With the product's tables in it, and stopped. Made once a test process: four seconds of work for each house."""
    folder = tempfile.mkdtemp(prefix="voicedesk-migrated-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    server = EmbeddedPostgres(Path(folder, "postgres"), settings=WITHOUT_FSYNC)
    server.start()
    migrate(Urls(*create_roles_and_database(server, DATABASE), DATABASE))
    server.stop()
    return server


class Answer:
    """An HTTP answer with the names that Flask's test client gives."""

    def __init__(self, response: requests.Response) -> None:
        self.status_code = response.status_code
        self.get_json = response.json


class Client:
    """Posts over HTTP what a test would post to Flask's test client."""

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url

    def post(self, path: str, *, data: Any, content_type: str, headers: dict[str, str]) -> Answer:
        sent = {**headers, "Content-Type": content_type}
        return Answer(requests.post(self._base_url + path, data=data, headers=sent, timeout=25))


class House:
    """Everything, on this machine, for one test."""

    def __init__(self, folder: Path, world: RemoteWorld, *, redis: bool = True, **overrides: Any) -> None:
        self.world = world
        self.postgres = EmbeddedPostgres(folder / "postgres", settings=WITHOUT_FSYNC)
        self.postgres.begin_as(_migrated_cluster())
        self.postgres.start()
        owner, app = create_roles_and_database(self.postgres, DATABASE)
        self.valkey = EmbeddedValkey(folder / "valkey") if redis else None
        if self.valkey:
            self.valkey.start()
        self.port = free_port()
        self.base_url = f"http://127.0.0.1:{self.port}"
        defaults: dict[str, Any] = {
            "public_base_url": self.base_url,
            "redis_url": self.valkey.url if self.valkey else None,
            "credentials_keys": [Fernet.generate_key().decode()],
            "lease_seconds": 3,
            "status_check_seconds": 3,
        }
        self.settings: Settings = make_settings(Urls(owner, app, DATABASE), world, **{**defaults, **overrides})
        self.environment = {**environment_of(self.settings), "PORT": str(self.port)}
        self._processes = Processes(folder / "processes", self.environment)
        self.environment = self._processes.environment  # what a test adds, its processes get
        self.platform = Platform(self.settings)
        self.client = Client(self.base_url)

    def start_web(self) -> None:
        self._processes.start_web(port=self.port)
        self.await_web()

    def start_worker(self, name: str = "worker") -> None:
        assert self.valkey is not None
        self._processes.start_worker(name, redis_url=self.valkey.url)

    def await_worker(self) -> None:
        """Until one answers the bell: before that, web processes do what has been left for a second."""
        assert self.valkey is not None
        with closing(redis.Redis.from_url(self.valkey.url)) as link:
            eventually(lambda: Worker.count(connection=link), seconds=40)

    def start_scheduler(self) -> None:
        self._processes.start_scheduler()

    def start(self, name: str, words: Sequence[str]) -> None:
        """Any other command as one of the house's processes."""
        self._processes.start(name, words)

    def await_web(self) -> None:
        eventually(lambda: is_ready(self.port), seconds=40, every=0.1)

    def kill(self, name: str) -> None:
        """SIGKILL to a command and everything it has started; it is started again."""
        self._processes.kill(name)

    def tell_to_stop(self, name: str) -> None:
        """SIGTERM to the command alone, which ends the rest itself; it is started again."""
        self._processes.signal(name, signal.SIGTERM, alone=True)

    def keep_down(self, name: str) -> None:
        """SIGKILL, for good."""
        self._processes.keep_down(name)

    def freeze(self, name: str) -> None:
        """SIGSTOP: it lives and does nothing until `thaw`."""
        self._processes.freeze(name)

    def thaw(self, name: str) -> None:
        self._processes.thaw(name)

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        with self.platform.database.transaction(system=True) as session:
            return [tuple(row) for row in session.execute(text(statement)).all()]

    def log(self, name: str) -> str:
        return self._processes.log_path(name).read_text()

    def close(self) -> None:
        self._processes.stop()
        self.platform.close()
        if self.valkey:
            self.valkey.stop()
        self.postgres.stop()
