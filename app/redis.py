"""The connection to Redis, its time limits, and its absence.

Owns who may wait for Redis and how long: 50 ms on a request's path, then it is left alone for a
second, because a frozen Redis is worse than a dead one (every request would stand in its queue).
Knows nothing of what is kept there; callers must cope with ``RedisAway`` at any moment.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.config import Settings

FAST_TIMEOUT_SECONDS = 0.05
LEFT_ALONE_SECONDS = 1.0
JOB_TIMEOUT_SECONDS = 5.0

T = TypeVar("T")


class RedisAway(Exception):
    """Redis is not configured, not reachable, too slow, or refuses (out of memory, loading)."""


class RedisLink:
    """One process's way to Redis. Thread-safe; cheap while Redis is away."""

    def __init__(self, url: str | None) -> None:
        self.url = url
        self._away_until = 0.0
        self._lock = threading.Lock()
        self._fast: redis.Redis | None = None
        if url:
            self._fast = redis.Redis.from_url(
                url,
                socket_timeout=FAST_TIMEOUT_SECONDS,
                socket_connect_timeout=FAST_TIMEOUT_SECONDS,
                retry=Retry(NoBackoff(), 0),
            )

    @classmethod
    def from_settings(cls, settings: Settings) -> RedisLink:
        """Build the link from REDIS_URL; without it every use raises RedisAway at once."""
        return cls(settings.redis_url)

    @property
    def configured(self) -> bool:
        """Whether REDIS_URL is set."""
        return self._fast is not None

    def use(self, action: Callable[[redis.Redis], T]) -> T:
        """Run ``action`` with the fast client; raise RedisAway instead of waiting or failing oddly.

        ``action`` is at most a few commands; each may take 50 ms. After one failure Redis is not
        asked again for a second, so that whoever calls this a thousand times a second stays fast.
        """
        if self._fast is None:
            raise RedisAway("not configured")
        if time.monotonic() < self._away_until:
            raise RedisAway("left alone after a failure")
        try:
            return action(self._fast)
        except redis.RedisError as error:
            with self._lock:
                self._away_until = time.monotonic() + LEFT_ALONE_SECONDS
            raise RedisAway(type(error).__name__) from None

    def for_jobs(self) -> redis.Redis:
        """A client with time limits fit for RQ; raises RedisAway when Redis is not configured."""
        if not self.url:
            raise RedisAway("not configured")
        options: dict[str, Any] = {
            "socket_timeout": JOB_TIMEOUT_SECONDS,
            "socket_connect_timeout": FAST_TIMEOUT_SECONDS * 4,
        }
        return redis.Redis.from_url(self.url, **options)
