"""A house to be broken: two web processes, two workers, a scheduler, PostgreSQL, Valkey and the stand-ins.

Owns what runs and how it is reached. PostgreSQL syncs to disk, as in production. What is broken, and when,
is the faults' (chaos/faults/).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg2
import redis
from cryptography.fernet import Fernet

from app.config import Settings, environment_of, load_settings
from app.services.platform import Platform
from chaos.network import Network
from chaos.people import Business, Numbers, found
from sandbox.house import ROOT, Processes, await_ready
from sandbox.ports import LOOPBACK, free_port
from sandbox.postgres import EmbeddedPostgres, create_roles_and_database
from sandbox.processes import Service
from sandbox.standins import RemoteWorld
from sandbox.valkey import EmbeddedValkey

WEBS = ("web-1", "web-2")
WORKERS = ("worker-1", "worker-2")
SCHEDULERS = ("scheduler-1", "scheduler-2")
PRODUCT = (*WEBS, *WORKERS, SCHEDULERS[0])
POSTGRES, VALKEY = "postgres", "valkey"
STARTUP = ROOT / "chaos" / "startup"  # its sitecustomize patches a process that is told to be broken
PATCH = "CHAOS_PATCH"


class Server:
    """A server as a service that a fault may keep down: then nobody starts it again."""

    def __init__(self, server: EmbeddedPostgres | EmbeddedValkey) -> None:
        self._server = server
        self.kept_down = False

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._server.pid

    def is_running(self) -> bool:
        """Whether it is there, or not wanted."""
        return self.kept_down or self._server.is_running()

    def start(self) -> None:
        """Start it, unless it is kept down."""
        if not self.kept_down:
            self._server.start()

    def stop(self) -> None:
        """End it orderly."""
        self._server.stop()


@dataclass(frozen=True)
class Plan:
    """How a house is to be built. ``settings`` go to the product, ``patch`` names what is broken in it."""

    settings: tuple[tuple[str, Any], ...] = ()
    patch: str | None = None
    clock: str | None = None  # whose clock can be set: the ``database``'s, or that of the product's ``processes``
    disk_megabytes: int | None = None
    hosts: int = 0  # network namespaces: web-1 and worker-1 on the first, and so on


@dataclass
class House:
    """All of it, running. ``begun`` False: the product's processes wait for ``break_product``."""

    plan: Plan
    begun: bool = True
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="voicedesk-chaos-")))
    web_ports: dict[str, int] = field(default_factory=lambda: {name: free_port() for name in WEBS})

    def __enter__(self) -> House:
        self._closing = contextlib.ExitStack()
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _build(self) -> None:
        self.network = self._closing.enter_context(Network(self.plan.hosts)) if self.plan.hosts else None
        here = self.network.address if self.network else LOOPBACK
        nearby = [LOOPBACK, here, *(host.address for host in self.network.hosts)] if self.network else [LOOPBACK]
        os.environ["NO_PROXY"] = os.environ["no_proxy"] = ",".join(nearby)  # everything is on this machine
        self._closing.callback(shutil.rmtree, self.folder, ignore_errors=True)
        clock = self._make_clock() if self.plan.clock else {}
        self.postgres = EmbeddedPostgres(
            self.folder / "postgres",
            environment=clock if self.plan.clock == "database" else None,
            settings={"max_connections": "300", "listen_addresses": ",".join({LOOPBACK, here})},
        )
        if self.plan.disk_megabytes:
            self._closing.enter_context(small_disk(self.postgres.home, self.plan.disk_megabytes))
        self._closing.callback(self.postgres.stop)
        self.postgres.start()
        owner, app = create_roles_and_database(self.postgres, "voicedesk")
        self.valkey = EmbeddedValkey(self.folder / "valkey")
        self._closing.callback(self.valkey.stop)
        self.valkey.start()
        if self.network:
            self._let_in(self.network)
        standins = free_port()
        self.world = RemoteWorld(f"http://{here}:{standins}")
        self.base_url = f"http://{self.web_host(WEBS[0])}:{self.web_ports[WEBS[0]]}"
        metrics = self.folder / "metrics"
        metrics.mkdir()
        more = dict(self.plan.settings)
        if "spool_dir" in Settings.model_fields:
            more |= {"spool_dir": str(self.folder / "spool")}
        settings = load_settings(
            environment="test",
            database_url=app.replace(f"@{LOOPBACK}:", f"@{here}:"),
            migration_database_url=owner,
            redis_url=self.valkey.url.replace(f"@{LOOPBACK}:", f"@{here}:"),
            credentials_keys=[Fernet.generate_key().decode()],
            public_base_url=self.base_url,
            twilio_api_base_url=self.world.twilio_url,
            google_calendar_api_base_url=self.world.google_url,
            vapi_api_base_url=self.world.vapi_url,
            slack_api_base_url=self.world.slack_url,
            metrics_dir=str(metrics),
            log_format="json",
            **more,
        )
        self.settings = settings
        environment = {**environment_of(settings), "WEB_CONCURRENCY": "1"}
        self.processes = Processes(self.folder / "processes", environment)
        self._more = clock if self.plan.clock == "processes" else {}
        self._patch = self.plan.patch
        self._closing.callback(self.processes.stop)
        self.processes.migrate()
        self.processes.start("stand-ins", [*_python("sandbox.standins"), "--host", here, "--port", str(standins)])
        self.servers = {POSTGRES: Server(self.postgres), VALKEY: Server(self.valkey)}
        for name, server in self.servers.items():
            self.processes.keep(name, _as_service(server))
        self.platform = Platform(settings, kind="cli")
        self._closing.callback(self.platform.close)
        if self.begun:
            self._start_product()

    def _start_product(self) -> None:
        for name in PRODUCT:
            self.start(name)
        for name in WEBS:
            await_ready(self.web_ports[name], host=self.web_host(name))

    def start(self, name: str) -> None:
        """One process of the product, broken as the plan says."""
        more = {**self._more, **(patched(self._patch) if self._patch else {})}
        if name in self.web_ports:
            bind = {"BIND": self.web_host(name)} if self.network else {}
            self.processes.start_web(name, port=self.web_ports[name], prefix=self._prefix(name), **more, **bind)
        elif name.startswith("worker"):
            redis_url = str(self.settings.redis_url)
            self.processes.start_worker(name, redis_url=redis_url, prefix=self._prefix(name), **more)
        else:
            self.processes.start_scheduler(name, **more)

    def web_host(self, name: str) -> str:
        """The address of a web process."""
        return self.network.hosts[WEBS.index(name)].address if self.network else LOOPBACK

    def _prefix(self, name: str) -> list[str]:
        """What makes a process run on its host."""
        return self.network.hosts[int(name[-1]) - 1].prefix if self.network else []

    def _let_in(self, network: Network) -> None:
        """The servers answer the hosts too."""
        with (self.postgres.data_dir / "pg_hba.conf").open("a") as rules:
            rules.write(f"host all all {network.subnet}.0/24 scram-sha-256\n")
        self.query("SELECT pg_reload_conf()")
        with contextlib.closing(redis.Redis.from_url(self.valkey.url, socket_timeout=5)) as link:
            link.config_set("bind", f"{LOOPBACK} {network.address}")

    def break_product(self, patch: str | None) -> None:
        """All of its processes anew, with a guarantee taken out, or whole again."""
        self._patch = patch
        for name in set(PRODUCT) & set(self.processes.names()):
            self.processes.keep_down(name)
        self._start_product()

    def open(self, count: int, numbers: Numbers, name: str) -> list[Business]:
        """New organizations, known to the stand-ins."""
        return [found(self.platform, self.world, numbers, f"{name} {number}") for number in range(1, count + 1)]

    def query(self, statement: str, values: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """What the database says to its superuser, whom no policy binds. Raises psycopg2.Error."""
        with contextlib.closing(psycopg2.connect(self.postgres.superuser_url("voicedesk"), connect_timeout=5)) as link:
            link.set_session(readonly=True, autocommit=True)
            with link.cursor() as cursor:
                cursor.execute("SET statement_timeout = '60s'")
                cursor.execute(statement, values or {})
                return list(cursor.fetchall())

    def set_clock(self, seconds: int) -> None:
        """Let the clock that can be set be ahead by so many seconds; seen at once."""
        draft = self._clock.with_suffix(".new")
        draft.write_text(f"{seconds:+d}\n")
        draft.chmod(0o644)
        draft.replace(self._clock)

    def _make_clock(self) -> dict[str, str]:
        """A file that says how wrong a clock is, and the variables that make a process believe it."""
        folder = Path(tempfile.mkdtemp(prefix="voicedesk-clock-"))
        folder.chmod(0o755)  # PostgreSQL's own user reads it
        self._closing.callback(shutil.rmtree, folder, ignore_errors=True)
        self._clock = folder / "clock"
        self.set_clock(0)
        library = folder / "clock.so"
        run("cc", "-shared", "-fPIC", "-O2", "-o", str(library), str(ROOT / "chaos" / "clock.c"))
        return {"LD_PRELOAD": str(library), "CHAOS_CLOCK": str(self._clock)}

    def close(self) -> None:
        """Stop everything and leave nothing."""
        self._closing.close()


def patched(patch: str) -> dict[str, str]:
    """The variables that make a process begin with a patch (chaos/sabotage.py)."""
    return {PATCH: patch, "PYTHONPATH": f"{STARTUP}{os.pathsep}{ROOT}"}


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int) -> Any:
    """A file system of its own at the folder, as small as that; needs root."""
    owner = folder.stat()
    options = f"size={megabytes}m,mode=0700,uid={owner.st_uid},gid={owner.st_gid}"
    run("mount", "-t", "tmpfs", "-o", options, "voicedesk-chaos", str(folder))
    try:
        yield
    finally:
        run("umount", str(folder))


def run(*words: str) -> None:
    """A command of the machine's. Raises RuntimeError with what it said."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        raise RuntimeError(f"{words[0]} failed: {done.stderr.strip()}")


def _as_service(server: Server) -> Service:
    return server


def _python(module: str) -> list[str]:
    return [sys.executable, "-m", module]
