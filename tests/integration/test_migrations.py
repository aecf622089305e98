"""The migrations: up, down, up; models and schema agree; eight databases of one cluster at once."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg2
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from app.config import environment_of
from app.models import Base
from sandbox.postgres import EmbeddedPostgres, create_roles_and_database
from tests.conftest import Urls, make_settings, run_as_superuser, superuser
from tests.eventually import eventually


def flask_db(urls: Urls, *words: str) -> subprocess.CompletedProcess[str]:
    environment = environment_of(make_settings(urls))
    command = [sys.executable, "-m", "flask", "--app", "wsgi", "db", *words]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=90)


def tables(urls: Urls) -> set[str]:
    connection = psycopg2.connect(urls.owner.replace("+psycopg2", ""))
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
            return {row[0] for row in cursor.fetchall()}
    finally:
        connection.close()


def test_an_empty_database_goes_up_down_and_up_again(empty_database_urls):
    for words in (("upgrade",), ("downgrade", "base"), ("upgrade",)):
        done = flask_db(empty_database_urls, *words)
        assert done.returncode == 0, done.stderr
        if words[0] == "downgrade":
            assert tables(empty_database_urls) == {"alembic_version"}
    assert {"processed_webhook_events", "webhook_delivery_log", "lanes"} <= tables(empty_database_urls)


def test_models_and_schema_do_not_differ(database_urls):
    engine = create_engine(database_urls.owner.replace("postgresql:", "postgresql+psycopg2:"))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_there_is_one_head():
    assert len(ScriptDirectory("migrations").get_heads()) == 1


def test_an_index_whose_building_was_broken_off_is_built_anew_and_holds_nobody_up(
    empty_database_urls, postgres: EmbeddedPostgres
):
    urls = empty_database_urls
    assert flask_db(urls, "upgrade", "0015").returncode == 0
    valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('ix_deliveries_listed')"
    building = (
        "SELECT pid FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX CONCURRENTLY%'"
        " AND wait_event_type = 'Lock' AND datname = current_database()"
    )
    with (
        superuser(postgres, urls.name) as reader,
        superuser(postgres, urls.name) as cursor,
        ThreadPoolExecutor(1) as pool,
    ):

        def found(statement: str) -> Any:
            cursor.execute(statement)
            return cursor.fetchone()

        reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM webhook_delivery_log")
        upgrade = pool.submit(flask_db, urls, "upgrade")
        eventually(lambda: found(building), seconds=60)
        cursor.execute(
            "SET lock_timeout = '1s'; INSERT INTO webhook_delivery_log (org_id, provider, type, event_key, lane_key)"
            " VALUES (gen_random_uuid(), 'test', 'probe', 'one', 'one')"
        )
        cursor.execute("SELECT pg_terminate_backend(%s)", found(building))
        assert upgrade.result().returncode != 0
        assert found(valid) == (False,)
        reader.execute("ROLLBACK")
        assert flask_db(urls, "upgrade").returncode == 0
        assert found(valid) == (True,)
        assert found("SELECT to_regclass('ix_deliveries_org')") == (None,)


def test_eight_databases_of_one_cluster_migrate_at_once(postgres: EmbeddedPostgres):
    prefix = f"eight{os.getpid()}"
    databases = [Urls(*create_roles_and_database(postgres, f"{prefix}_{n}"), f"{prefix}_{n}") for n in range(8)]

    def upgrade(urls: Urls) -> subprocess.CompletedProcess[str]:
        environment = {**environment_of(make_settings(urls)), "DATABASE_ROLE_PREFIX": prefix}
        command = [sys.executable, "-m", "flask", "--app", "wsgi", "db", "upgrade"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=110)

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(upgrade, databases))
    assert [done.returncode for done in results] == [0] * 8, [done.stderr[-600:] for done in results]
    for urls in databases:
        run_as_superuser(postgres, f"DROP DATABASE {urls.name} WITH (FORCE)")
