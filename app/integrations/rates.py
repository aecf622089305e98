"""How fast one account of a provider may be used: a bucket of tokens for each, shared by all processes.

Owns the counting, in Redis for all processes and in memory without it. A bucket has as many tokens as
calls are allowed in its window, and each comes back a window after its call has ended; so whatever
happens on the way there, the provider, who counts the same way, never sees more than it allows. Nobody
waits here: who gets no token is told when to come back. Times are Redis's clock or this process's
monotonic one.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import cast

import redis

from app.redis import RedisAway, RedisLink

SAFETY = 1.02  # a window is that much longer than the provider's, whose clock may run differently
TURNS_APART = 0.8  # turns are given a little too close together, or tokens would lie idle when one comes late
MOST_ACCOUNTS = 2000

_TAKE = """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local size, window, pressing = tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4] == '1'
local newest = redis.call('ZREVRANGE', KEYS[1], 0, 0, 'WITHSCORES')
if newest[2] and tonumber(newest[2]) > now then
  redis.call('DEL', KEYS[1], KEYS[2])  -- the clock was set back
end
local free = now + math.max(0, redis.call('PTTL', KEYS[3]))
local oldest = redis.call('ZREVRANGE', KEYS[1], size - 1, size - 1, 'WITHSCORES')
if oldest[2] then free = math.max(free, tonumber(oldest[2]) + window) end
if pressing or free <= now then
  redis.call('ZADD', KEYS[1], now, ARGV[1])
  redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -size - 1)
  redis.call('PEXPIRE', KEYS[1], window)
  return 0
end
local turn = math.max(free, tonumber(redis.call('GET', KEYS[2]) or '0'))
local after = turn + window / size * tonumber(ARGV[5])
redis.call('SET', KEYS[2], string.format('%.0f', after), 'PX', math.ceil(turn - now + window))
return math.ceil(turn - now)
"""
_USE = """
local t = redis.call('TIME')
if redis.call('ZADD', KEYS[1], 'XX', 'CH', t[1] * 1000 + math.floor(t[2] / 1000), ARGV[1]) == 1 then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
"""


@dataclass(slots=True)
class _Bucket:
    """One account's, in this process's memory."""

    taken: dict[str, float] = field(default_factory=dict)
    next_turn: float = 0.0
    held_until: float = 0.0


class Rates:
    """All buckets. Thread-safe."""

    def __init__(self, link: RedisLink) -> None:
        self._link = link
        self._lock = threading.Lock()
        self._here: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, account: str, per_second: float, *, holder: str, pressing: bool = False) -> float:
        """Take a token: 0.0 when there was one, else in how many seconds it is this caller's turn.

        ``pressing``: somebody is on the line. Never refused; others wait for the token instead.
        """
        size, window = _bucket_of(per_second)
        try:
            return self._link.use(lambda client: self._take_there(client, account, size, window, holder, pressing))
        except RedisAway:
            return self._take_here(account, size, window, holder, pressing)

    def use(self, account: str, per_second: float, *, holder: str) -> None:
        """The call that ``holder`` took the token for begins, or has ended, only now: its window begins now."""
        _, window = _bucket_of(per_second)
        milliseconds = str(int(window * 1000))
        try:
            self._link.use(lambda client: client.eval(_USE, 1, _keys(account)[0], holder, milliseconds))
        except RedisAway:
            with self._lock:
                taken = self._bucket(account).taken
                if holder in taken:
                    taken[holder] = time.monotonic()

    def hold_back(self, account: str, seconds: float) -> None:
        """The provider itself has asked for less: no token for anybody for so long."""
        try:
            self._link.use(lambda client: client.set(_keys(account)[2], "1", px=max(1, int(seconds * 1000))))
        except RedisAway:
            with self._lock:
                self._bucket(account).held_until = time.monotonic() + seconds

    @staticmethod
    def _take_there(client: redis.Redis, account: str, size: int, window: float, holder: str, pressing: bool) -> float:
        keys = _keys(account)
        arguments = (holder, str(size), str(int(window * 1000)), "1" if pressing else "0", str(TURNS_APART))
        return cast(int, client.eval(_TAKE, len(keys), *keys, *arguments)) / 1000

    def _take_here(self, account: str, size: int, window: float, holder: str, pressing: bool) -> float:
        with self._lock:
            bucket = self._bucket(account)
            now = time.monotonic()
            newest = sorted(bucket.taken.values(), reverse=True)[:size]
            free = max(now, bucket.held_until, newest[-1] + window if len(newest) == size else 0.0)
            if pressing or free <= now:
                bucket.taken = {known: at for known, at in bucket.taken.items() if at > now - window} | {holder: now}
                return 0.0
            turn = max(free, bucket.next_turn)
            bucket.next_turn = turn + window / size * TURNS_APART
            return turn - now

    def _bucket(self, account: str) -> _Bucket:
        found = self._here.pop(account, None) or _Bucket()
        self._here[account] = found
        while len(self._here) > MOST_ACCOUNTS:
            self._here.popitem(last=False)
        return found


def _bucket_of(per_second: float) -> tuple[int, float]:
    """How many tokens, and for how long each is gone."""
    size = max(1, int(per_second))
    return size, size / per_second * SAFETY


def _keys(account: str) -> list[str]:
    """Whose account it is cannot be read in Redis: its name holds a number."""
    name = hashlib.sha256(account.encode()).hexdigest()[:24]
    return [f"voicedesk:rate:{name}:{part}" for part in ("taken", "turn", "held")]
