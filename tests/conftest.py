"""What tests stand on: a real PostgreSQL and a real Valkey per test process, a database per test.

Roles are made once per cluster, the migrations run once into a template, and every test that asks for
``database_urls`` gets a clone of it: real commits, nothing shared, any order.
"""

from __future__ import annotations

import itertools
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import redis
from cryptography.fernet import Fernet
from flask import Flask
from flask_migrate import upgrade

from app import create_app
from app.config import Settings, load_settings
from app.integrations.breaker import circuits
from app.services.platform import Platform
from sandbox.postgres import EmbeddedPostgres, create_roles_and_database
from sandbox.standins import RemoteWorld, StandIns
from sandbox.valkey import EmbeddedValkey
from tests.leaks import LeakWatch, plant
from tests.memory import folder_in_memory
from tests.people import People

TEMPLATE = "voicedesk_template"
_spools = tempfile.TemporaryDirectory(prefix="voicedesk-spools-")  # gone with the test process
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Urls:
    """The same database as its owner and as the login role."""

    owner: str
    app: str
    name: str


def pytest_configure(config: pytest.Config) -> None:
    """Watch everything that is logged or reported from here on."""
    watch = LeakWatch()
    watch.begin()
    config.pluginmanager.register(watch, "leaks")


def pytest_report_header() -> str:
    """Say which PostgreSQL the tests run on."""
    chosen = os.environ.get("TEST_POSTGRES_BIN")
    return f"PostgreSQL: {f'that of {chosen}' if chosen else 'the embedded one'}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Once more at the end, where it is read."""
    terminalreporter.write_line(pytest_report_header())


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """One cluster per test process; without fsync, because no test pulls the plug of the machine."""
    chosen = os.environ.get("TEST_POSTGRES_BIN")
    folder = tmp_path_factory.mktemp("postgres")
    with folder_in_memory() as memory:
        server = EmbeddedPostgres(
            (memory or folder) / "cluster",
            log_path=folder / "postgres.log",
            bin_dir=Path(chosen) if chosen else None,
            settings={"fsync": "off", "max_connections": "300", "max_wal_size": "256MB"},
        )
        server.start()
        yield server
        server.stop()
        shutil.rmtree(server.home, ignore_errors=True)  # root's is elsewhere


@pytest.fixture(autouse=True)
def _environment() -> Iterator[None]:
    """Hold every test to leaving the environment as it was: settings are read from it, those of later tests too."""
    before = _variables()
    yield
    assert _variables() == before, "this test changed the environment of all that follow it"


def _variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}


@pytest.fixture(scope="session")
def _valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    server = EmbeddedValkey(tmp_path_factory.mktemp("valkey"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def valkey(_valkey: EmbeddedValkey) -> EmbeddedValkey:
    """One Valkey per test process, for tests that leave it running; emptied, since circuits are shared through it."""
    with redis.Redis.from_url(_valkey.url) as client:
        client.flushall()
    return _valkey


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    """A Valkey that a test may freeze or kill."""
    server = EmbeddedValkey(tmp_path / "valkey")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def template(postgres: EmbeddedPostgres) -> Urls:
    """A database with the real migrations in it."""
    owner, app_url = create_roles_and_database(postgres, TEMPLATE)
    urls = Urls(owner, app_url, TEMPLATE)
    migrate(urls)
    return urls


@pytest.fixture
def empty_database_urls(postgres: EmbeddedPostgres) -> Urls:
    """An empty database of its own."""
    name = f"empty_{next(_numbers)}"
    return Urls(*create_roles_and_database(postgres, name), name)


@pytest.fixture
def database_urls(postgres: EmbeddedPostgres, template: Urls) -> Iterator[Urls]:
    """A clone of the template."""
    name = f"test_{next(_numbers)}"
    how = f"TEMPLATE {TEMPLATE} OWNER voicedesk_owner STRATEGY FILE_COPY"  # what is not durable needs no log of it
    run_as_superuser(postgres, f"CREATE DATABASE {name} {how}")
    yield Urls(template.owner.replace(TEMPLATE, name), template.app.replace(TEMPLATE, name), name)
    run_as_superuser(postgres, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def _world() -> Iterator[RemoteWorld]:
    with StandIns.running(latency=0.0) as world:
        yield world


@pytest.fixture
def world(_world: RemoteWorld) -> Iterator[RemoteWorld]:
    """The outside world, empty and without faults."""
    _world.reset()
    yield _world
    _world.clear_faults()


@pytest.fixture
def settings(database_urls: Urls, world: RemoteWorld) -> Settings:
    """Settings without Redis; tests that want one add its URL."""
    return make_settings(database_urls, world)


@pytest.fixture
def app(settings: Settings) -> Iterator[Flask]:
    """The application. Its caretaker is not running, so nothing is delivered unless a test says so."""
    app = create_app(settings)
    yield app
    app.extensions["platform"].close()


@pytest.fixture
def platform(app: Flask) -> Iterator[Platform]:
    """The application's platform, with all circuits closed."""
    circuits.reset()
    yield app.extensions["platform"]
    circuits.reset()


@pytest.fixture
def people(platform: Platform, world: RemoteWorld) -> People:
    """Two organizations with names, connected to the stand-ins."""
    return People(platform, world)


def make_settings(urls: Urls, world: RemoteWorld | None = None, **overrides: object) -> Settings:
    """Settings for one database and one world, fast enough for tests."""
    clients = (
        {
            "twilio_api_base_url": world.twilio_url,
            "google_calendar_api_base_url": world.google_url,
            "vapi_api_base_url": world.vapi_url,
            "slack_api_base_url": world.slack_url,
        }
        if world
        else {}
    )
    key = Fernet.generate_key().decode()
    plant(key)
    return load_settings(
        **{
            "environment": "test",
            "database_url": urls.app,
            "migration_database_url": urls.owner,
            "redis_url": None,
            "credentials_keys": [key],
            "public_base_url": "https://voicedesk.test",
            "retry_base_seconds": 0.2,
            "unknown_lookup_seconds": 0.5,
            "circuit_open_seconds": 0.5,
            "google_changes_per_second": 100,  # at the default of 3 a busy test is paced now and then
            "status_check_seconds": 3600,
            "log_format": "json",
            "spool_dir": str(Path(_spools.name, secrets.token_hex(6))),  # made on need
            **clients,
            **overrides,
        }
    )


def migrate(urls: Urls) -> None:
    """The real migrations, as ``flask db upgrade`` runs them."""
    app = create_app(make_settings(urls))
    with app.app_context():
        upgrade()
    app.extensions["platform"].close()


@contextmanager
def superuser(postgres: EmbeddedPostgres, database: str = "postgres") -> Iterator[Any]:
    """A cursor past all roles, outside any transaction."""
    with closing(psycopg2.connect(postgres.superuser_url(database))) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            yield cursor


def run_as_superuser(postgres: EmbeddedPostgres, statement: str) -> None:
    """One statement outside any transaction."""
    with superuser(postgres) as cursor:
        cursor.execute(statement)
