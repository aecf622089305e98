"""PostgreSQL and Redis restarted, killed, frozen, emptied, full, and their connections cut."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator

import psycopg2
import redis

from chaos.house import POSTGRES, VALKEY, House, Plan
from chaos.stage import Disturbance, Fault, Stage, nothing

BACK_SECONDS = 90.0
DISK_MEGABYTES = 640
_CUT = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND usename = 'voicedesk_app'
"""
_LOCK = """
SET LOCAL lock_timeout = '5s';
LOCK TABLE processed_webhook_events, webhook_delivery_log, webhook_payloads, delivery_attempts IN ACCESS EXCLUSIVE MODE
"""


def repeating(disturb: Callable[[Stage], None], between: tuple[float, float]) -> Disturbance:
    """A disturbance that is made again and again."""

    @contextlib.contextmanager
    def again_and_again(stage: Stage) -> Iterator[None]:
        with stage.repeating(lambda: disturb(stage), between=between):
            yield

    return again_and_again


def await_postgres(house: House) -> None:
    """Wait until PostgreSQL answers. Raises RuntimeError."""
    deadline = time.monotonic() + BACK_SECONDS
    while True:
        try:
            house.query("SELECT 1")
            return
        except psycopg2.Error:
            if time.monotonic() > deadline:
                raise RuntimeError("PostgreSQL does not come back") from None
            time.sleep(0.1)


def _restart_postgres(stage: Stage) -> None:
    stage.house.postgres.stop()  # who keeps it running starts it again
    await_postgres(stage.house)


def _kill_postgres(stage: Stage) -> None:
    stage.house.postgres.kill()
    await_postgres(stage.house)


def _cut_connections(stage: Stage) -> None:
    with contextlib.closing(psycopg2.connect(stage.house.postgres.superuser_url("voicedesk"))) as link:
        link.autocommit = True
        with link.cursor() as cursor:
            cursor.execute(_CUT)


def _freeze_postgres(stage: Stage) -> None:
    stage.house.postgres.freeze()
    time.sleep(stage.rng.uniform(2, 4) if stage.short else stage.rng.uniform(4, 12))
    stage.house.postgres.thaw()
    await_postgres(stage.house)


def _lock_tables(stage: Stage) -> None:
    """What a migration does that rewrites a table: PostgreSQL answers, and not for these."""
    url = stage.house.postgres.superuser_url("voicedesk")
    with contextlib.closing(psycopg2.connect(url)) as link, link, link.cursor() as cursor:
        cursor.execute(_LOCK)
        time.sleep(stage.rng.uniform(2, 4) if stage.short else stage.rng.uniform(4, 12))


@contextlib.contextmanager
def _postgres_away(stage: Stage) -> Iterator[None]:
    """Away for a while, not only for the moment of a restart."""

    def away() -> None:
        server = stage.house.servers[POSTGRES]
        server.kept_down = True
        stage.house.postgres.stop()
        time.sleep(stage.rng.uniform(1, 2) if stage.short else stage.rng.uniform(5, 15))
        server.kept_down = False
        await_postgres(stage.house)

    with stage.repeating(away, between=(4.0, 10.0)):
        yield


def _fill_disk(stage: Stage) -> None:
    """Fill it up, and make room again later; PostgreSQL ends itself when it cannot write its log."""
    ballast = stage.house.postgres.home / "ballast"
    free = shutil.disk_usage(stage.house.postgres.home).free
    with ballast.open("wb") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, max(1, free - 64 * 1024))
            while True:
                file.seek(0, os.SEEK_END)
                file.write(b"\0" * 8192)
                file.flush()
        except OSError:
            pass  # full, which was the purpose
    time.sleep(stage.rng.uniform(4, 8))
    ballast.unlink()
    await_postgres(stage.house)


def _no_small_disk() -> str | None:
    if os.geteuid() != 0:
        return "mounting a small file system needs root"
    return None if shutil.which("mount") else "there is no mount here"


def _stop_redis(stage: Stage) -> None:
    server = stage.house.servers[VALKEY]
    server.kept_down = True
    stage.house.valkey.stop()
    time.sleep(stage.rng.uniform(1, 2) if stage.short else stage.rng.uniform(3, 12))
    server.kept_down = False
    _await_redis(stage.house)


def _empty_redis(stage: Stage) -> None:
    """Killed, and back with nothing: every job, flag and circuit it held is gone."""
    house = stage.house
    server = house.servers[VALKEY]
    server.kept_down = True
    house.valkey.kill()
    shutil.rmtree(house.valkey.data_dir, ignore_errors=True)
    server.kept_down = False
    _await_redis(house)


def _freeze_redis(stage: Stage) -> None:
    stage.house.valkey.freeze()
    time.sleep(stage.rng.uniform(2, 3) if stage.short else stage.rng.uniform(4, 12))
    stage.house.valkey.thaw()
    _await_redis(stage.house)


@contextlib.contextmanager
def _redis_full(stage: Stage) -> Iterator[None]:
    """Out of memory, with `noeviction`: every write is refused, every read answered."""
    with contextlib.closing(redis.Redis.from_url(stage.house.valkey.url, socket_timeout=5)) as link:
        link.config_set("maxmemory", "1")
        try:
            yield
        finally:
            link.config_set("maxmemory", "0")


def _await_redis(house: House) -> None:
    deadline = time.monotonic() + BACK_SECONDS
    with contextlib.closing(redis.Redis.from_url(house.valkey.url, socket_timeout=1)) as link:
        while True:
            try:
                link.ping()
                return
            except redis.RedisError:
                if time.monotonic() > deadline:
                    raise RuntimeError("Valkey does not come back") from None
                time.sleep(0.1)


FAULTS = (
    Fault("redis-stopped", "redis", "Redis away for 3 to 12 s", repeating(_stop_redis, (3, 8)), 4_000, in_short=120),
    Fault("redis-emptied", "redis", "Redis killed and back with nothing in it", repeating(_empty_redis, (3, 8)), 3_000),
    Fault("redis-frozen", "redis", "Redis takes connections and says nothing", repeating(_freeze_redis, (3, 8)), 3_000),
    Fault("redis-full", "redis", "Redis out of memory: it refuses every write", _redis_full, 3_000),
    Fault("postgres-restarted", "postgres", "PostgreSQL restarted", repeating(_restart_postgres, (5, 12)), 3_000),
    Fault(
        "postgres-killed",
        "postgres",
        "PostgreSQL killed with all its processes",
        repeating(_kill_postgres, (5, 12)),
        3_000,
        in_short=120,
    ),
    Fault("postgres-away", "postgres", "PostgreSQL away for 5 to 15 s", _postgres_away, 3_000),
    Fault("postgres-cut", "postgres", "all its connections cut", repeating(_cut_connections, (1, 4)), 3_000),
    Fault(
        "postgres-frozen",
        "postgres",
        "PostgreSQL says nothing for 4 to 12 s",
        repeating(_freeze_postgres, (5, 10)),
        2_000,
    ),
    Fault(
        "postgres-locked",
        "postgres",
        "the tables of deliveries locked for 4 to 12 s",
        repeating(_lock_tables, (5, 10)),
        2_000,
    ),
    Fault(
        "postgres-full",
        "disk",
        "PostgreSQL's disk full for 4 to 8 s",
        repeating(_fill_disk, (5, 10)),
        2_000,
        plan=Plan(disk_megabytes=DISK_MEGABYTES),
        needs=_no_small_disk,
    ),
    Fault("no-fault", "quiet", "nothing is broken: what the load alone looks like", nothing, 3_000),
)
