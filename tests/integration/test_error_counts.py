"""Errors counted by kind: in Redis for all processes, in memory without it, and waiting for neither."""

from __future__ import annotations

import threading

from redis import Redis

from app.observability import errors
from app.observability.errors import Tally, count
from app.redis import RedisLink
from app.services.error_counts import ErrorCounts
from sandbox.valkey import EmbeddedValkey
from tests.eventually import eventually


class Clock:
    """A clock that stands where it is put."""

    def __init__(self, now: float = 1_000_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def test_counts_are_by_kind_over_one_five_and_sixty_minutes() -> None:
    clock = Clock()
    counts = ErrorCounts(RedisLink(None), Tally(clock))
    for age, kind in ((3000, "web:A"), (200, "web:A"), (200, "job:B"), (0, "web:A")):
        clock.now = 1_000_000_000.0 - age
        count(kind)
    clock.now = 1_000_000_000.0
    assert counts.totals() == {
        "1m": {"web:A": 1},
        "5m": {"web:A": 2, "job:B": 1},
        "60m": {"web:A": 3, "job:B": 1},
    }
    assert [counts.total(minutes) for minutes in (1, 5, 60)] == [1, 3, 4]
    clock.now += 3700
    assert counts.totals()["60m"] == {}


def test_processes_count_together_in_redis(own_valkey: EmbeddedValkey) -> None:
    ones = ErrorCounts(RedisLink(own_valkey.url))
    count("web:A")
    others = ErrorCounts(RedisLink(own_valkey.url))
    count("web:A")
    count("job:B")
    eventually(lambda: ones.totals()["5m"] == {"web:A": 2, "job:B": 1})  # by their own threads
    eventually(lambda: others.totals() == ones.totals())
    ones.stop()
    others.stop()
    assert ErrorCounts(RedisLink(own_valkey.url)).totals()["5m"] == {"web:A": 2, "job:B": 1}  # who comes later, too


def test_what_redis_does_not_know_yet_is_counted_already(own_valkey: EmbeddedValkey) -> None:
    counts = ErrorCounts(RedisLink(own_valkey.url))
    for number in range(1, 6):
        count("web:A")
        assert counts.total(1) == number
    counts.stop()
    assert ErrorCounts(RedisLink(own_valkey.url)).total(1) == 5


def test_without_redis_memory_counts_and_what_was_counted_follows(own_valkey: EmbeddedValkey) -> None:
    counts = ErrorCounts(RedisLink(own_valkey.url))
    own_valkey.stop()
    count("web:A")
    count("web:A")
    assert counts.total(5) == 2
    assert not counts.flush()
    own_valkey.start()
    eventually(lambda: ErrorCounts(RedisLink(own_valkey.url)).total(5) == 2)
    assert counts.total(5) == 2
    counts.stop()


def test_keys_in_redis_end_by_themselves(own_valkey: EmbeddedValkey) -> None:
    counts = ErrorCounts(RedisLink(own_valkey.url))
    count("web:A")
    assert counts.flush()
    redis = Redis.from_url(own_valkey.url)
    (key,) = redis.keys("voicedesk:errors:*")
    assert 3600 < redis.ttl(key) <= 3900
    counts.stop()


def test_kinds_are_bounded_and_none_is_lost() -> None:
    counts = ErrorCounts(RedisLink(None))
    for number in range(errors.MOST_KINDS + 50):
        count(f"web:{number}")
    assert counts.total(5) == errors.MOST_KINDS + 50
    assert counts.totals()["5m"][errors.OTHER] == 50


def test_counting_waits_for_no_redis(own_valkey: EmbeddedValkey) -> None:
    counts = ErrorCounts(RedisLink(own_valkey.url))
    own_valkey.freeze()
    try:
        threads = [threading.Thread(target=count, args=("web:A",)) for _ in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=2)
        assert not any(thread.is_alive() for thread in threads)
        assert counts.total(1) == 50
    finally:
        own_valkey.thaw()
    counts.stop()
