"""Counting requests in moving windows: for all processes in Redis, for this one alone while Redis is away.

Owns where is counted, for how long Redis may be waited for (50 ms, then it is left alone for a second,
as ``app/redis.py`` has it), and who is near a limit. Counting must never fail a request, so nothing here
raises. What is counted, and what is answered, is the doors' business.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import cast
from uuid import UUID

from limits.storage import RedisStorage
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.observability.logging import get_logger
from app.redis import FAST_TIMEOUT_SECONDS, RedisAway, RedisLink

log = get_logger(__name__)

# The strategy is part of the prefix: another one over the same keys finds values of another type.
KEY_PREFIX = "voicedesk:quota:moving"
NEAR_KEY = "voicedesk:quota:near"
PROBE_KEY = "probe"
NEAR_SHARE = 0.9
NOTE_EVERY_SECONDS = 5.0
NOTED_FOR_SECONDS = 7200
MOST_KEYS_ALONE = 10_000


@dataclass(frozen=True, slots=True)
class Usage:
    """How much of its quota an organization has used in the window that ends now."""

    org_id: UUID
    accepted: int
    quota: int


@dataclass(frozen=True, slots=True)
class _Near:
    """Where an organization's requests are counted."""

    key: str
    quota: int
    window_seconds: int


class Quotas:
    """One process's way of counting. Thread-safe."""

    def __init__(self, redis: RedisLink) -> None:
        self._redis = redis
        self._shared = _shared_storage(redis.url) if redis.url else None
        self._alone = MovingWindows(MOST_KEYS_ALONE)
        self._near: dict[UUID, tuple[float, _Near]] = {}
        self._counts_alone = False  # what Redis says is then of another count than the last one

    def acquire(self, key: str, *, limit: int, window_seconds: int, amount: int = 1) -> bool:
        """Count one more if that stays within the limit; False, and nothing counted, if it does not."""
        if self._shared is not None:
            shared = self._shared
            try:
                counted = self._redis.use(lambda _: shared.acquire_entry(key, limit, window_seconds, amount))
            except RedisAway:
                self._count_alone(True)
            else:
                self._count_alone(False)
                return counted
        return self._alone.acquire(key, limit=limit, window_seconds=window_seconds, amount=amount)

    def used(self, key: str, *, limit: int, window_seconds: int) -> tuple[float, int]:
        """Since when (seconds since 1970) the oldest counted one counts, and how many count: at most ``limit``."""
        if self._shared is not None and not self._counts_alone:
            shared = self._shared
            try:
                return self._redis.use(lambda _: shared.get_moving_window(key, limit, window_seconds))
            except RedisAway:
                self._count_alone(True)
        return self._alone.used(key, window_seconds=window_seconds)

    def cannot_count(self) -> bool:
        """Whether this process cannot count together with the others just now; tried by counting something.

        Never without a configured Redis. While it is so a limit holds for each process alone: as many times
        the quota as there are processes may get through.
        """
        if self._shared is None:
            return False
        self.acquire(PROBE_KEY, limit=1_000, window_seconds=1)
        return self._counts_alone

    def note(self, org_id: UUID, key: str, *, used: int, quota: int, window_seconds: int) -> None:
        """Remember an organization at 90 % of its quota or more, for whoever asks in any process.

        At most one command to Redis in five seconds for each organization, and none below 90 %.
        """
        known = self._near.get(org_id)
        if known and known[1].key != key:  # its quota was changed: the old count tells nothing any more
            self._forget(org_id)
            known = None
        if used < NEAR_SHARE * quota or (known and time.monotonic() - known[0] < NOTE_EVERY_SECONDS):
            return
        self._near[org_id] = (time.monotonic(), _Near(key, quota, window_seconds))
        if len(self._near) > MOST_KEYS_ALONE:
            self._near.clear()

        def write(redis: Redis) -> None:
            redis.hset(NEAR_KEY, str(org_id), f"{quota} {window_seconds} {key}")
            redis.expire(NEAR_KEY, NOTED_FOR_SECONDS)

        try:
            self._redis.use(write)
        except RedisAway:
            return  # known in this process at least

    def near_limit(self) -> list[Usage]:
        """The organizations at 90 % of their API quota or more just now: of all processes, or of this one alone."""
        near: dict[UUID, _Near] = {}
        try:
            stored = self._redis.use(lambda redis: cast(dict[bytes, bytes], redis.hgetall(NEAR_KEY)))
        except RedisAway:
            stored = {}
            near = {org_id: where for org_id, (_, where) in self._near.copy().items()}
        for org, line in stored.items():
            quota, window, key = line.decode().split(" ", 2)
            near[UUID(org.decode())] = _Near(key, int(quota), int(window))
        found = []
        for org_id, where in near.items():
            _, used = self.used(where.key, limit=where.quota, window_seconds=where.window_seconds)
            if used >= NEAR_SHARE * where.quota:
                found.append(Usage(org_id, used, where.quota))
            else:
                self._forget(org_id)
        return sorted(found, key=lambda usage: str(usage.org_id))

    def _count_alone(self, alone: bool) -> None:
        if alone is not self._counts_alone:
            self._counts_alone = alone
            log.warning("quotas.counted_alone" if alone else "quotas.counted_together")

    def _forget(self, org_id: UUID) -> None:
        self._near.pop(org_id, None)
        try:
            self._redis.use(lambda redis: redis.hdel(NEAR_KEY, str(org_id)))
        except RedisAway:
            return


class MovingWindows:
    """Counts in this process's memory, bounded: of too many keys the one that was idle longest is forgotten."""

    def __init__(self, most_keys: int) -> None:
        self._most_keys = most_keys
        self._moments: OrderedDict[str, deque[float]] = OrderedDict()
        self._lock = threading.Lock()

    def acquire(self, key: str, *, limit: int, window_seconds: float, amount: int = 1) -> bool:
        """Count ``amount`` more if that stays within the limit."""
        now = time.time()
        with self._lock:
            moments = self._moments.setdefault(key, deque())
            self._moments.move_to_end(key)
            while len(self._moments) > self._most_keys:
                self._moments.popitem(last=False)
            _drop_older(moments, now - window_seconds)
            if len(moments) + amount > limit:
                return False
            moments.extend([now] * amount)
            return True

    def used(self, key: str, *, window_seconds: float) -> tuple[float, int]:
        """The moment of the oldest that counts (now, if there is none), and how many count."""
        now = time.time()
        with self._lock:
            moments = self._moments.get(key)
            if not moments:
                return now, 0
            _drop_older(moments, now - window_seconds)
            return (moments[0], len(moments)) if moments else (now, 0)


def _drop_older(moments: deque[float], than: float) -> None:
    while moments and moments[0] < than:
        moments.popleft()


def _shared_storage(url: str) -> RedisStorage:
    """The windows that all processes share; its connections have the time limits of a request's path."""
    return RedisStorage(
        url,
        key_prefix=KEY_PREFIX,
        socket_timeout=FAST_TIMEOUT_SECONDS,
        socket_connect_timeout=FAST_TIMEOUT_SECONDS,
        retry=Retry(NoBackoff(), 0),  # type: ignore[arg-type]
    )
