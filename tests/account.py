"""What the server itself says of each statement, as it was carried out (auto_explain): rows and pages, never time."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from app.services.platform import Platform
from sandbox.postgres import EmbeddedPostgres
from tests.conftest import superuser

_SETTINGS = {
    "session_preload_libraries": "auto_explain",
    "auto_explain.log_min_duration": "0",
    "auto_explain.log_analyze": "on",
    "auto_explain.log_buffers": "on",
    "auto_explain.log_timing": "off",
    "auto_explain.log_nested_statements": "on",
    "auto_explain.log_format": "json",
}
_SAID = re.compile(r"duration: [\d.]+ ms  plan:\n((?:\t.*\n)+)")


class Statement:
    """One that was carried out: what was asked, and how many pages were looked at for it."""

    def __init__(self, said: dict[str, Any]) -> None:
        self._plan = said["Plan"]
        self.asked = " ".join(said["Query Text"].split())
        self.pages: int = self._plan["Shared Hit Blocks"] + self._plan["Shared Read Blocks"]

    def readings(self) -> Iterator[tuple[str, int]]:
        """Each reading of a table: which, and of how many rows, those that were thrown away included."""
        return _readings(self._plan)


def _readings(plan: dict[str, Any]) -> Iterator[tuple[str, int]]:
    if "Relation Name" in plan and plan.get("Operation") is None:
        rows = sum(plan.get(name, 0) for name in ("Actual Rows", "Rows Removed by Filter"))
        yield plan["Relation Name"], int(rows * plan["Actual Loops"])
    for part in plan.get("Plans", ()):
        yield from _readings(part)


class Account:
    """Of one database, from ``begin`` on."""

    def __init__(self, postgres: EmbeddedPostgres, name: str, platform: Platform) -> None:
        with superuser(postgres) as cursor:
            for setting, value in _SETTINGS.items():
                cursor.execute(f"ALTER DATABASE {name} SET {setting} = '{value}'")
        platform.database.engine.dispose()  # connections that are there do not know of it
        self._log = postgres.log_path
        self.begin()

    def begin(self) -> None:
        """Forget what was before."""
        self._from = self._log.stat().st_size

    def statements(self) -> list[Statement]:
        """All since then, in order."""
        with self._log.open(errors="replace") as log:
            log.seek(self._from)
            return [Statement(json.loads(said)) for said in _SAID.findall(log.read())]
