"""Alerts while the database is away: its loss is told while it lasts, once, and its return once."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import redis

from app.config import Settings
from app.services.platform import Platform
from sandbox.standins import RemoteWorld
from sandbox.valkey import EmbeddedValkey
from tests.conftest import Urls, make_settings, run_as_superuser
from tests.eventually import eventually
from tests.integration.test_alerts import CHANNEL, QUICK, TOKEN, told


@pytest.fixture
def settings(database_urls: Urls, world: RemoteWorld) -> Settings:
    world.slack_token(TOKEN)
    world.slack_channel(CHANNEL, "alerts")
    return make_settings(database_urls, world, **QUICK)


@pytest.fixture
def away(postgres, database_urls) -> Iterator[Callable[[], None]]:
    """Cut this test's database off, as an outage does; `back` afterwards."""
    name = database_urls.name

    def cut() -> None:
        run_as_superuser(postgres, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        run_as_superuser(postgres, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")

    yield cut
    run_as_superuser(postgres, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")


def tick_until(*platforms: Platform, holds: Callable[[], object], seconds: float = 20) -> None:
    def step() -> object:
        for one in platforms:
            one.watcher.tick()
        return holds()

    eventually(step, seconds=seconds)


@pytest.mark.parametrize("with_redis", [True, False])
def test_a_lost_database_is_told_while_it_is_away_and_its_return_afterwards(
    platform, another, away, world, valkey, postgres, database_urls, with_redis
):
    first = another(redis_url=valkey.url if with_redis else None)
    second = another(redis_url=valkey.url if with_redis else None)
    forget(valkey)
    watching = (first, second) if with_redis else (first,)
    for one in watching:
        one.watcher.tick()
    away()
    tick_until(*watching, holds=lambda: told(world))
    for _ in range(3):
        for one in watching:
            one.watcher.tick()
    assert told(world) == [":red_circle: The database cannot be reached"]
    run_as_superuser(postgres, f"ALTER DATABASE {database_urls.name} ALLOW_CONNECTIONS true")
    tick_until(*watching, holds=lambda: len(told(world)) == 2)
    assert told(world)[1] == ":white_check_mark: The database is back"
    for _ in range(3):
        for one in watching:
            one.watcher.tick()
    assert len(told(world)) == 2


def test_a_process_that_dies_while_the_database_is_away_leaves_its_note_to_others(
    platform, another, away, world, valkey, postgres, database_urls
):
    forget(valkey)
    dying, other = another(redis_url=valkey.url), another(redis_url=valkey.url)
    other.watcher.tick()
    away()
    tick_until(dying, holds=lambda: told(world))
    run_as_superuser(postgres, f"ALTER DATABASE {database_urls.name} ALLOW_CONNECTIONS true")
    tick_until(other, holds=lambda: len(told(world)) == 2)
    assert told(world)[1] == ":white_check_mark: The database is back"


def forget(valkey: EmbeddedValkey) -> None:
    client = redis.Redis.from_url(valkey.url)
    for key in client.scan_iter("voicedesk:*"):
        client.delete(key)
    client.close()
