"""Looks at the books every second: accepted = processed + waiting + dead + skipped (+ erased), in one snapshot.

Owns a statement of its own over the product's tables, as PostgreSQL's superuser: neither the product's
code nor its policies decide what is counted.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import ClassVar

import psycopg2

from chaos.looking import Looking

_BALANCE = """
SELECT (SELECT coalesce(sum(accepted - processed - dead - skipped - erased), 0) FROM ledger_entries)
     - (SELECT count(*) FROM webhook_delivery_log WHERE status IN ('received', 'processing', 'retrying'))
"""


@dataclass
class Watcher(Looking):
    """A thread that looks. ``away`` counts the seconds in which the database could not be asked."""

    every_seconds: ClassVar[float] = 1.0
    url: str
    balanced: int = 0
    away: int = 0
    differences: list[int] = field(default_factory=list)

    def look(self) -> int:
        """Accepted less what is accounted for, in one REPEATABLE READ snapshot. Raises psycopg2.Error."""
        with contextlib.closing(psycopg2.connect(self.url, connect_timeout=2)) as link:
            link.set_session(isolation_level="REPEATABLE READ", readonly=True)
            with link.cursor() as cursor:
                cursor.execute("SET LOCAL statement_timeout = '10s'")
                cursor.execute(_BALANCE)
                return int(cursor.fetchone()[0])  # type: ignore[index]

    def look_once(self) -> None:
        """Count what it came to."""
        try:
            difference = self.look()
        except psycopg2.Error:
            self.away += 1
        else:
            if difference:
                self.differences.append(difference)
            else:
                self.balanced += 1
