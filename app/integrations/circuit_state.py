"""What is known of one circuit: consecutive failures, how long it stays open, who probes it.

Owns the two keepers of that state, which obey the same rules: one in this process's memory and one in
Redis, for all processes. Decides nothing about exceptions and calls no provider.

The rules. Enough consecutive failures (CIRCUIT_FAILURES) *trip* a circuit: it is open for a while, then
half open until a probe ends. While it is tripped only the holder of the probe can change it: calls that began before
and end now say nothing new. Times are Redis's TTLs or this process's monotonic clock, never wall clocks.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import redis

FAILURES_TO_OPEN = 3  # unless the registry is told otherwise
PROBE_SECONDS = 12.0  # longer than any protected call may take; a probe whose process died blocks for so long
FORGET_SECONDS = 86_400.0  # failures that nobody added to for a day are forgotten


State = Literal["closed", "open", "half_open"]


@dataclass(frozen=True, slots=True)
class Reading:
    """A circuit at one moment. ``open_seconds`` is what is left of its being open, 0 when it is not.

    ``limit`` is how many failures in a row trip it.
    """

    failures: int = 0
    open_seconds: float = 0.0
    limit: int = FAILURES_TO_OPEN

    @property
    def tripped(self) -> bool:
        """Whether it is open or half open."""
        return self.failures >= self.limit


@dataclass(frozen=True, slots=True)
class Claim:
    """The answer to "may I probe?": not, while somebody else does or the circuit is open; not needed, when closed."""

    granted: bool
    reading: Reading


class LocalKeeper:
    """The state in this process: its own truth without Redis, its copy of the common truth with it.

    Thread-safe. ``version`` changes with every change, so that a reading taken before one is not kept.
    """

    def __init__(self) -> None:
        self.limit = FAILURES_TO_OPEN
        self._lock = threading.Lock()
        self._failures = 0
        self._open_until = 0.0
        self._probe = ""
        self._probe_until = 0.0
        self.version = 0

    def read(self) -> Reading:
        """The state now; takes no lock and no microsecond too many: every decision begins here."""
        # A torn read is harmless: whoever sees "tripped" claims next, and claiming is locked.
        failures = self._failures
        if failures < self.limit:
            return Reading(failures, limit=self.limit)
        return Reading(failures, max(0.0, self._open_until - time.monotonic()), self.limit)

    def keep(self, reading: Reading, *, if_version: int) -> bool:
        """Take over what Redis said, unless something has happened here since ``if_version``; whether it did.

        ``version`` is read before Redis is asked: of two threads that asked, the one with the older answer may come
        later, and must not undo what the newer one said.
        """
        with self._lock:
            if if_version != self.version:
                return False
            self._set(reading.failures, reading.open_seconds)
            return True

    def failed(self, token: str, open_seconds: float) -> Reading:
        """Count a failure; the last of the limit in a row, and any of the probe, opens the circuit."""
        with self._lock:
            if self._failures < self.limit or self._holds(token):
                failures = self._failures + 1
                self._set(failures, open_seconds if failures >= self.limit else 0.0)
        return self.read()

    def succeeded(self, token: str) -> Reading:
        """End a row of failures; while tripped only the probe can."""
        with self._lock:
            if self._failures < self.limit or self._holds(token):
                self._set(0, 0.0)
        return self.read()

    def claim(self, token: str) -> Claim:
        """Become the probe, if the circuit is half open and nobody else is."""
        with self._lock:
            reading = self.read()
            granted = reading.tripped and not reading.open_seconds and time.monotonic() >= self._probe_until
            if granted:
                self._probe, self._probe_until = token, time.monotonic() + PROBE_SECONDS
        return Claim(granted, reading)

    def release(self, token: str) -> None:
        """Stop being the probe without a result: the next may try."""
        with self._lock:
            if self._holds(token):
                self._probe, self._probe_until = "", 0.0

    def reset(self) -> None:
        """Forget everything, a probe under way included: what it finds out counts as an ordinary call."""
        with self._lock:
            self._set(0, 0.0)

    def after_fork(self) -> None:
        """The thread that may have held the lock stayed in the parent."""
        self._lock = threading.Lock()

    def _holds(self, token: str) -> bool:
        return bool(token) and token == self._probe

    def _set(self, failures: int, open_seconds: float) -> None:
        self._open_until = time.monotonic() + open_seconds if open_seconds > 0 else 0.0
        self._failures = failures
        if open_seconds > 0 or failures < self.limit:
            self._probe, self._probe_until = "", 0.0
        self.version += 1


_STATE = """
local function reading()
  return {tonumber(redis.call('GET', KEYS[1]) or '0'), math.max(0, redis.call('PTTL', KEYS[2]))}
end
local now = reading()
local free = now[1] < tonumber(ARGV[2]) or (ARGV[1] ~= '' and redis.call('GET', KEYS[3]) == ARGV[1])
"""
_READ = _STATE + "return now"
_FAILED = (
    _STATE
    + """
if not free then return now end
local failures = redis.call('INCR', KEYS[1])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
if failures >= tonumber(ARGV[2]) then
  redis.call('SET', KEYS[2], '1', 'PX', ARGV[3])
  redis.call('DEL', KEYS[3])
end
return reading()
"""
)
_SUCCEEDED = _STATE + "if free then redis.call('DEL', KEYS[1], KEYS[2], KEYS[3]) end return reading()"
_CLAIM = (
    _STATE
    + """
if now[1] < tonumber(ARGV[2]) or now[2] > 0 then return {0, now[1], now[2]} end
local granted = redis.call('SET', KEYS[3], ARGV[1], 'NX', 'PX', ARGV[3])
return {granted and 1 or 0, now[1], now[2]}
"""
)
_RELEASE = _STATE + "if ARGV[1] ~= '' and redis.call('GET', KEYS[3]) == ARGV[1] then redis.call('DEL', KEYS[3]) end"
_PUBLISH = (
    _STATE
    + """
if now[1] < tonumber(ARGV[2]) then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[4])
  if tonumber(ARGV[3]) > 0 then redis.call('SET', KEYS[2], '1', 'PX', ARGV[3]) end
end
"""
)


class RedisKeeper:
    """The same state for all processes. One round trip and one atomic script a verb; raises redis.RedisError."""

    def __init__(self, circuit: str) -> None:
        self.limit = FAILURES_TO_OPEN
        self._keys = [f"voicedesk:circuit:{circuit}:{part}" for part in ("failures", "open", "probe")]

    @staticmethod
    def read_all(client: redis.Redis, keepers: Sequence[RedisKeeper]) -> list[Reading]:
        """The state of several circuits: one command while all are well."""
        counts = cast(list[bytes | None], client.mget([keeper._keys[0] for keeper in keepers]))
        readings = [Reading(int(n or 0), limit=keeper.limit) for n, keeper in zip(counts, keepers, strict=True)]
        return [k.read(client) if r.tripped else r for k, r in zip(keepers, readings, strict=True)]

    def read(self, client: redis.Redis) -> Reading:
        """The state now."""
        return self._reading(self._run(client, _READ, ""))

    def failed(self, client: redis.Redis, token: str, open_seconds: float) -> Reading:
        """Count a failure; the last of the limit in a row, and any of the probe, opens the circuit."""
        return self._reading(self._run(client, _FAILED, token, open_seconds, FORGET_SECONDS + open_seconds))

    def succeeded(self, client: redis.Redis, token: str) -> Reading:
        """End a row of failures; while tripped only the probe can."""
        return self._reading(self._run(client, _SUCCEEDED, token))

    def claim(self, client: redis.Redis, token: str) -> Claim:
        """Become the probe (``SET NX PX``), if the circuit is half open and no process is."""
        granted, *reading = self._run(client, _CLAIM, token, PROBE_SECONDS)
        return Claim(bool(granted), self._reading(reading))

    def release(self, client: redis.Redis, token: str) -> None:
        """Stop being the probe without a result: the next may try."""
        self._run(client, _RELEASE, token)

    def publish(self, client: redis.Redis, reading: Reading) -> None:
        """Tell Redis, back from being away, of a circuit that tripped meanwhile."""
        self._run(client, _PUBLISH, "", reading.open_seconds, FORGET_SECONDS + reading.open_seconds)

    def clear(self, client: redis.Redis) -> None:
        """Forget everything: the circuit is closed."""
        client.delete(*self._keys)

    def _run(self, client: redis.Redis, script: str, token: str, *seconds: float) -> list[Any]:
        milliseconds = [str(int(value * 1000)) for value in seconds]
        answer = client.eval(script, len(self._keys), *self._keys, token, str(self.limit), *milliseconds)
        return cast(list[Any], answer)

    def _reading(self, answer: list[Any]) -> Reading:
        failures, milliseconds = answer
        return Reading(int(failures), int(milliseconds) / 1000, self.limit)
