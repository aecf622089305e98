"""What the integration tests share: a client of the application, and delivering until something holds."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.serving import WSGIRequestHandler, make_server

from app.services.drain import Drain
from app.services.platform import Platform
from sandbox.standins import RemoteWorld
from tests.account import Account
from tests.command_line import CommandLine
from tests.conftest import run_as_superuser
from tests.eventually import eventually
from tests.people import Business, open_business


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A client of the application."""
    return app.test_client()


@pytest.fixture
def cli(app: Flask) -> CommandLine:
    """The command line of this installation."""
    return CommandLine(app)


@pytest.fixture
def bakery(platform: Platform, world: RemoteWorld) -> Business:
    """A business beside the salon and its neighbour, whose calendar is not connected yet."""
    return open_business(platform, world, "Corner Bakery", "+4930333330003", google=False)


@pytest.fixture
def settle(platform: Platform) -> Callable[..., None]:
    """Deliver, again and again, until a condition holds."""

    def until(condition: Callable[[], object], seconds: float = 20) -> None:
        drain = Drain(platform, threads=4)

        def step() -> object:
            drain.run()
            return condition()

        eventually(step, seconds=seconds)

    return until


class _Silent(WSGIRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing: an access line of the test's server is none of the product's."""


@pytest.fixture
def served(app: Flask) -> Iterator[str]:
    """Where the application answers over HTTP, for those who call it from outside."""
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Silent)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join(timeout=10)
    server.server_close()


@pytest.fixture
def another(platform: Platform) -> Iterator[Callable[..., Platform]]:
    """Another process's platform over the same database; all circuits are this test process's."""
    made: list[Platform] = []

    def make(**overrides: Any) -> Platform:
        made.append(Platform(platform.settings.model_copy(update=overrides)))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def away(postgres, database_urls):
    """The test's own database takes no connections within the block, and has let go of those there were."""

    @contextmanager
    def until_end() -> Iterator[None]:
        run_as_superuser(postgres, f"ALTER DATABASE {database_urls.name} WITH ALLOW_CONNECTIONS false")
        run_as_superuser(
            postgres,
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database_urls.name}'",
        )
        try:
            yield
        finally:
            run_as_superuser(postgres, f"ALTER DATABASE {database_urls.name} WITH ALLOW_CONNECTIONS true")

    return until_end


@pytest.fixture
def account(postgres, database_urls, platform) -> Account:
    """What the server says of each statement of this test."""
    return Account(postgres, database_urls.name, platform)


@pytest.fixture
def met(people, platform, client):
    """The two organizations, known to this process."""
    platform.directory.warm()
    return people
