"""How fast one account of a provider may be used: a bucket of tokens for each, shared by all processes.

Owns the counting, in Redis for all processes and in memory without it. A bucket has as many tokens as
calls are allowed in its window, and each comes back a window after its call has ended, however long that
takes; so whatever happens on the way there, the provider, who counts the same way, never sees more than it
allows. Nobody waits here: who gets no token is told when to come back. Times are Redis's clock or this process's
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
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', now)  -- calls of processes that died
local left = size
for _, holder in ipairs(redis.call('ZRANGE', KEYS[4], 0, -1)) do
  local at = redis.call('ZSCORE', KEYS[1], holder)
  if not at or tonumber(at) + window <= now then left = left - 1 end  -- a call that lasts: its token is still gone
end
if left < 1 then
  free = math.max(free, now + window / size)
else
  local oldest = redis.call('ZREVRANGE', KEYS[1], left - 1, left - 1, 'WITHSCORES')
  if oldest[2] then free = math.max(free, tonumber(oldest[2]) + window) end
end
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
_BEGIN = """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then return 0 end
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('ZADD', KEYS[2], now + ARGV[3], ARGV[1])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return 1
"""
_END = """
local t = redis.call('TIME')
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZADD', KEYS[1], t[1] * 1000 + math.floor(t[2] / 1000), ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""


@dataclass(slots=True)
class _Bucket:
    """One account's, in this process's memory."""

    taken: dict[str, float] = field(default_factory=dict)
    under_way: dict[str, float] = field(default_factory=dict)  # until when a call may take at the most
    next_turn: float = 0.0
    held_until: float = 0.0


class Rates:
    """All buckets. Thread-safe."""

    def __init__(self, link: RedisLink) -> None:
        self._link = link
        self._lock = threading.Lock()
        self._here: OrderedDict[str, _Bucket] = OrderedDict()
        self._alone_since: float | None = None

    def take(self, account: str, per_second: float, *, holder: str, pressing: bool = False) -> float:
        """Take a token: 0.0 when there was one, else in how many seconds it is this caller's turn.

        ``pressing``: somebody is on the line. Never refused; others wait for the token instead.
        """
        size, window = _bucket_of(per_second)
        try:
            wait = self._link.use(lambda client: self._take_there(client, account, size, window, holder, pressing))
            self._alone_since = None
            return wait
        except RedisAway:
            return self._take_here(account, size, window, holder, pressing)

    def begin(self, account: str, per_second: float, *, holder: str, seconds: float) -> bool:
        """The call that ``holder`` took a token for begins, and may take so many ``seconds``.

        False: it comes so late that others have had its token since. It must not be made without another.
        """
        given = (holder, *_milliseconds(_bucket_of(per_second)[1], seconds))
        try:
            return bool(self._link.use(lambda client: client.eval(_BEGIN, 2, *_calls(account), *given)))
        except RedisAway:
            with self._lock:
                bucket, now = self._bucket(account), time.monotonic()
                if holder in bucket.taken:  # it may have been taken in Redis: then nothing is known here
                    bucket.taken[holder] = now
                bucket.under_way[holder] = now + seconds
                return True

    def end(self, account: str, per_second: float, *, holder: str) -> None:
        """The call has ended: the window of its token begins now."""
        given = (holder, *_milliseconds(_bucket_of(per_second)[1]))
        try:
            self._link.use(lambda client: client.eval(_END, 2, *_calls(account), *given))
        except RedisAway:
            with self._lock:
                bucket = self._bucket(account)
                bucket.under_way.pop(holder, None)
                bucket.taken[holder] = time.monotonic()

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
            bucket.under_way = {known: until for known, until in bucket.under_way.items() if until > now}
            lasting = sum(1 for known in bucket.under_way if bucket.taken.get(known, 0.0) + window <= now)
            free, left = max(now, bucket.held_until), size - lasting
            if self._link.configured:
                # One slow answer of Redis would else give each process a full bucket beside what was just taken there.
                self._alone_since = self._alone_since or now
                free = max(free, self._alone_since + window)
            newest = sorted(bucket.taken.values(), reverse=True)[: max(left, 0)]
            if left < 1:
                free = max(free, now + window / size)
            elif len(newest) == left:
                free = max(free, newest[-1] + window)
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
    return [f"voicedesk:rate:{name}:{part}" for part in ("taken", "turn", "held", "calls")]


def _calls(account: str) -> tuple[str, str]:
    taken, _, _, calls = _keys(account)
    return taken, calls


def _milliseconds(*seconds: float) -> list[str]:
    return [str(int(one * 1000)) for one in seconds]
