"""The ground that everything measured stands on: one durable PostgreSQL, one Valkey, both emptied before each run.

Owns the servers and their settings: fsync and synchronous commit on, Valkey written through every second.
Nothing here is measured.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import psycopg2
import redis

from sandbox.postgres import EmbeddedPostgres, create_roles_and_database
from sandbox.valkey import EmbeddedValkey

PRODUCT, PEER = "voicedesk", "peer"


class Ground:
    """Both servers, for as long as the block lasts. ``settings`` are PostgreSQL's, beside those of all tests."""

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        self._scratch = tempfile.TemporaryDirectory(prefix="voicedesk-bench-")
        self.folder = Path(self._scratch.name)
        self.folder.chmod(0o755)
        self.postgres = EmbeddedPostgres(self.folder / "postgres", settings=settings)
        self.valkey = EmbeddedValkey(self.folder / "valkey")
        self.owner_url = self.app_url = self.peer_url = ""

    def __enter__(self) -> Ground:
        self.postgres.start()
        self.valkey.start()
        self.owner_url, self.app_url = create_roles_and_database(self.postgres, PRODUCT)
        self.run("postgres", f"CREATE DATABASE {PEER}")
        self.peer_url = self.postgres.superuser_url(PEER)
        return self

    def __exit__(self, _type: type[BaseException] | None, _value: object, _trace: TracebackType | None) -> None:
        self.valkey.stop()
        self.postgres.stop()
        self._scratch.cleanup()

    def empty(self) -> None:
        """Nothing waits and nothing is left to be written: what ran before costs the next run nothing."""
        self.run(
            PRODUCT,
            "TRUNCATE processed_webhook_events, webhook_delivery_log, webhook_payloads, delivery_attempts, lanes,"
            " ledger_entries, calls CASCADE",
        )
        self.run(PEER, "TRUNCATE events, event_log")
        with redis.Redis.from_url(self.valkey.url) as client:
            client.flushall()
        self.run("postgres", "CHECKPOINT")

    def make_peer_tables(self, schema: str) -> None:
        """The peer's schema, in its own database."""
        self.run(PEER, schema)

    def ask(self, database: str, question: str) -> float:
        """One number that the database knows."""
        with psycopg2.connect(self.postgres.superuser_url(database)) as connection, connection.cursor() as cursor:
            cursor.execute(question)
            found = cursor.fetchone()
        connection.close()
        return float(found[0]) if found and found[0] is not None else 0.0

    def run(self, database: str, statement: str) -> None:
        """One statement as the superuser, outside any transaction."""
        connection = psycopg2.connect(self.postgres.superuser_url(database))
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement)
        finally:
            connection.close()
