"""What every process stands on: its variables, its server, its keys, the clock, the disk."""

from __future__ import annotations

import os
import runpy
import shutil
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import text

from app.config import Environment, read_settings
from app.errors import ConfigurationError
from app.models.integrations import count_integrations, count_lenient, list_sealed_with_provider
from app.models.quarantine import list_refusals
from app.services.readiness.outcomes import Outcome, failed, passed, warned

if TYPE_CHECKING:
    from app.services.platform import Platform

ROOT = Path(__file__).resolve().parents[3]
SAMPLE = 500
MOST_CLOCK_SECONDS = 2.0
LEAST_FREE_BYTES = 200_000_000
ENOUGH_FREE_BYTES = 1_000_000_000
FLEETING = frozenset({"tmpfs", "ramfs", "overlay"})
KEPT_FOR_OTHERS = 10  # connections: workers' own pools are counted, commands and people are not
_PAIRS = (("slack_bot_token", "slack_alert_channel"),)
_WANTED_IN_PRODUCTION = ("redis_url", "sentry_dsn", "slack_bot_token", "vapi_private_key", "release")


def environment_variables(platform: Platform) -> Outcome:
    """Nothing is wrong, nothing is half set, and production says what it leaves out."""
    _, faults = read_settings(**platform.settings.model_dump())
    if faults:
        wrong = ", ".join(fault.variable for fault in faults)
        return failed(f"wrong: {wrong}", "Run `flask --app wsgi settings check`.")
    settings = platform.settings
    for pair in _PAIRS:
        there = [name.upper() for name in pair if getattr(settings, name)]
        absent = [name.upper() for name in pair if not getattr(settings, name)]
        if there and absent:
            return failed(f"{there[0]} is set without {absent[0]}", f"Set {absent[0]} too.")
    if settings.environment is Environment.PRODUCTION:
        unset = [name.upper() for name in _WANTED_IN_PRODUCTION if getattr(settings, name) is None]
        if unset:
            return warned(f"not set: {', '.join(unset)}", "Set them, or do without knowingly; see the README.")
    names = sorted(name for name in settings.model_fields_set if getattr(settings, name) is not None)
    defaults = len(type(settings).model_fields) - len(names)
    return passed(f"{len(names)} set, {defaults} at their defaults, none wrong; {settings.environment.value}")


def server_configuration(platform: Platform) -> Outcome:
    """gunicorn's file loads, its processes' connections fit the database, and providers reach it by HTTPS."""
    settings = platform.settings
    try:
        served = runpy.run_path(str(ROOT / "gunicorn.conf.py"))
    except SystemExit:
        return failed("gunicorn.conf.py does not load", "Check PORT, WEB_CONCURRENCY and WEB_THREADS.")
    production = settings.environment is Environment.PRODUCTION
    if production and not settings.public_base_url.startswith("https://"):
        return failed("PUBLIC_BASE_URL is not https://", "Set PUBLIC_BASE_URL to what providers are given.")
    web = int(served["workers"])
    wanted = (web + 1) * settings.database_pool_size
    with platform.database.transaction(system=True, statement_timeout_ms=2000) as session:
        most = session.execute(text("SELECT current_setting('max_connections')::int")).scalar_one()
    if wanted > most - KEPT_FOR_OTHERS:
        return failed(
            f"{web} web processes and a worker may hold {wanted} connections, the server has {most}",
            "Lower WEB_CONCURRENCY or DATABASE_POOL_SIZE, or raise max_connections.",
        )
    if int(served["threads"]) > settings.database_pool_size:
        return warned(
            f"{served['threads']} threads share {settings.database_pool_size} connections",
            "Raise DATABASE_POOL_SIZE to WEB_THREADS, or lower WEB_THREADS.",
        )
    return passed(f"{web} processes x {served['threads']} threads on {served['bind']}, up to {wanted} connections")


def encryption_keys(platform: Platform) -> Outcome:
    """The keys open what is stored: every integration's credentials, or a sample of many."""
    with platform.database.transaction(system=True, statement_timeout_ms=5000) as session:
        number = count_integrations(session)
        sample = list_sealed_with_provider(session, limit=SAMPLE)
    closed, older = 0, 0
    for provider, sealed in sample:
        try:
            platform.vault.open(provider, sealed)
        except ConfigurationError:
            closed += 1
            continue
        older += not platform.vault.is_newest(sealed)
    if closed:
        return failed(
            f"no key opens {closed} of {len(sample)} integrations' credentials",
            "Put the key that sealed them back into CREDENTIALS_KEYS, or set them anew with `integration set`.",
        )
    more = f", {older} with an older key: `credentials rotate` renews them" if older else ""
    return passed(f"open {len(sample)} of {number} integrations' credentials{more}")


def webhook_verification(platform: Platform) -> Outcome:
    """Every integration refuses what is not proven; one that is being moved in says so."""
    with platform.database.transaction(system=True, statement_timeout_ms=5000) as session:
        modes = count_lenient(session)
        refused = sum(one.times for one in list_refusals(session))
    if not modes:
        return passed("every integration refuses webhooks whose proof does not hold")
    told = ", ".join(f"{number} in {mode}" for mode, number in modes.items())
    requests = f"{refused} request{'s' if refused != 1 else ''} without proof so far"
    return warned(f"{told}; {requests}", "Mend the secrets, then `integration set-verification ID enforce`.")


def clock(platform: Platform) -> Outcome:
    """This machine's clock and the database's agree, since dates of both are compared."""
    began = time.monotonic()
    with platform.database.transaction(system=True, statement_timeout_ms=2000) as session:
        here = datetime.now(UTC)
        there = session.execute(text("SELECT clock_timestamp()")).scalar_one()
    away = abs((there - here).total_seconds())
    if away - (time.monotonic() - began) > MOST_CLOCK_SECONDS:
        return failed(f"{away:.1f} s away from the database's clock", "Run NTP (chrony, systemd-timesyncd) on both.")
    return passed(f"{away * 1000:.0f} ms away from the database's")


def disk(platform: Platform) -> Outcome:
    """There is room, the folders that are written to take a file, and the spool is on a disk that lasts."""
    folders: dict[str, Path] = {"the temporary folder": Path(tempfile.gettempdir()), "the folder of this house": ROOT}
    if platform.settings.spool_max_bytes:
        folders["SPOOL_DIR"] = _existing(Path(platform.settings.spool_dir))
    if platform.settings.metrics_dir:
        folders["METRICS_DIR"] = Path(platform.settings.metrics_dir)
    free: dict[str, int] = {}
    for name, folder in folders.items():
        try:
            if name != "the folder of this house":
                _write(folder)
            free[name] = shutil.disk_usage(folder).free
        except OSError as error:
            return failed(f"{name} cannot be written to ({error.strerror})", "Make it, or mend its owner and mode.")
    least = min(free, key=lambda name: free[name])
    told = f"{free[least] / 1e9:.1f} GB free where {least} is"
    if free[least] < LEAST_FREE_BYTES:
        return failed(told, "Make room; a full disk stops logs and metrics.")
    if free[least] < ENOUGH_FREE_BYTES:
        return warned(told, "Make room soon.")
    return _spool(platform, told)


def _spool(platform: Platform, told: str) -> Outcome:
    """Whether what is answered 2xx while the database is away would be there after a restart of this host."""
    if not platform.settings.spool_max_bytes:
        return warned(f"{told}; no spool", "Without SPOOL_MAX_BYTES webhooks are lost while the database is away.")
    found = platform.spool.contents()
    if found.aside:
        return failed(f"{found.aside} lines of the spool cannot be read", "See docs/operations.md, then `spool drain`.")
    kind = file_system_of(_existing(Path(platform.settings.spool_dir)))
    if kind in FLEETING:
        return warned(f"SPOOL_DIR is on {kind}, which a restart empties", "Put SPOOL_DIR on a volume that lasts.")
    if found.lines:
        return warned(f"{found.lines} events wait in the spool", "See to the database; they go in by themselves.")
    return passed(f"{told}; the spool is empty, on {kind}")


def _existing(folder: Path) -> Path:
    """The folder, or that in which it will be made."""
    return next(place for place in (folder.absolute(), *folder.absolute().parents) if place.is_dir())


def file_system_of(folder: Path) -> str:
    """What kind of file system holds the folder, as the kernel names it; "a disk" where nobody says."""
    try:
        mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()]
    except OSError:
        return "a disk"
    place = folder.resolve()
    holding = [one for one in mounts if place.is_relative_to(one[4].replace("\\040", " "))]
    deepest = max(holding, key=lambda one: len(one[4]), default=None)
    return deepest[deepest.index("-") + 1] if deepest else "a disk"


def _write(folder: Path) -> None:
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".readiness-") as file:
        file.write(b"room")
        file.flush()
        os.fsync(file.fileno())
