"""What a house holds while it works: memory, open files and threads of its processes, connections, files on disk.

Owns the looking, and the rule of what is flat. Rows and log lines grow with what comes in, by intent, and are left out.
"""

from __future__ import annotations

import contextlib
import statistics
from dataclasses import dataclass, field
from typing import ClassVar

import psutil
import psycopg2
import redis

from chaos.house import PRODUCT, House
from chaos.looking import Looking
from sandbox.children import family_of

LEAST_SAMPLES = 12
MOST_GROWTH = 1.1
# Beside a tenth: what a measure may grow by without meaning anything.
_SLACK = {"MB": 8.0, "files": 5.0, "threads": 3.0, "connections": 5.0}
_CONNECTIONS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
MB = 1024 * 1024


@dataclass(frozen=True)
class Trend:
    """One measure: its median in the second quarter of the time, and in the last."""

    name: str
    unit: str
    before: float
    after: float

    @property
    def is_flat(self) -> bool:
        """Whether it does not grow."""
        return self.after <= self.before * MOST_GROWTH + _SLACK[self.unit]

    def __str__(self) -> str:
        return f"{self.name} {self.before:,.0f} to {self.after:,.0f} {self.unit}"


@dataclass
class Vitals(Looking):
    """A thread that looks at a house until the block ends."""

    house: House
    every_seconds: ClassVar[float] = 5.0
    samples: dict[tuple[str, str], list[float]] = field(default_factory=dict)

    def trends(self) -> list[Trend]:
        """Each measure's; raises RuntimeError when there was no time to see one."""
        found = []
        for (name, unit), values in self.samples.items():
            if len(values) < LEAST_SAMPLES:
                raise RuntimeError(f"{name} was looked at {len(values)} times: too few to tell whether it grows")
            quarter = len(values) // 4
            before, after = statistics.median(values[quarter : 2 * quarter]), statistics.median(values[-quarter:])
            found.append(Trend(name, unit, before, after))
        return found

    def look_once(self) -> None:
        """Note everything; a process that is not there just now is left out this time."""
        with contextlib.suppress(psutil.Error, psycopg2.Error, redis.RedisError, OSError):
            self._look()

    def _look(self) -> None:
        for name in PRODUCT:
            family = family_of(self.house.processes.pid(name))
            self._note(name, "MB", sum(one.memory_info().rss for one in family) / MB)
            self._note(name, "files", sum(one.num_fds() for one in family))
            self._note(name, "threads", sum(one.num_threads() for one in family))
        self._note("PostgreSQL", "connections", float(self.house.query(_CONNECTIONS)[0][0]))
        with contextlib.closing(redis.Redis.from_url(self.house.valkey.url, socket_timeout=5)) as link:
            said = link.info()
        self._note("Valkey", "connections", float(said["connected_clients"]))
        self._note("Valkey", "MB", said["used_memory"] / MB)
        for name in ("spool", "metrics"):
            folder = self.house.folder / name
            there = [path.stat().st_size for path in folder.rglob("*") if path.is_file()] if folder.exists() else []
            self._note(f"the folder {name}", "MB", sum(there) / MB)
            self._note(f"the folder {name}", "files", len(there))

    def _note(self, name: str, unit: str, value: float) -> None:
        self.samples.setdefault((name, unit), []).append(value)
