"""What the integration tests share: a client of the application, and delivering until something holds."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.services.drain import Drain
from app.services.platform import Platform
from tests.eventually import eventually


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A client of the application."""
    return app.test_client()


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
