"""Errors by kind over 1, 5 and 60 minutes, of all processes: together in Redis, alone without it.

Owns how each process's counts reach Redis (from a thread of its own, never on a request's path) and how
they are read back. A hash a minute, that ends by itself; a field is a slot of ten seconds and a kind, so
that a window slides in steps of ten seconds. What Redis does not know yet is added from memory; without
Redis only memory is left, and what was counted meanwhile follows when it is back.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections import Counter
from typing import Any

from redis import Redis

from app.observability.errors import SLOT_SECONDS, Counts, Tally, count_into
from app.redis import RedisAway, RedisLink

WINDOWS = (1, 5, 60)  # minutes
FLUSH_SECONDS = 1.0
KEY = "voicedesk:errors:{minute}"
KEPT_SECONDS = 65 * 60
_SLOTS_A_MINUTE = 60 // SLOT_SECONDS


class ErrorCounts:
    """One process's counts, and its view of all processes'. Also what `errors.report` counts into from now on."""

    def __init__(self, link: RedisLink, tally: Tally | None = None) -> None:
        self._link = link
        self._tally = tally or Tally()
        self._stopping = threading.Event()
        self._wanted = threading.Event()
        self._start = threading.Lock()
        self._flushing = threading.Lock()
        self._thread: threading.Thread | None = None
        if link.configured:
            self._tally.on_count = self._begin
        count_into(self._tally)
        _alive.add(self)

    def totals(self) -> dict[str, dict[str, int]]:
        """Errors by kind: ``{"1m": {kind: n}, "5m": {...}, "60m": {...}}``. A window is up to ten seconds longer."""
        counts = self._read(max(WINDOWS))
        return {f"{minutes}m": dict(self._within(counts, minutes)) for minutes in WINDOWS}

    def total(self, minutes: int) -> int:
        """All errors of the last ``minutes`` (at most 60)."""
        return sum(self._within(self._read(minutes), minutes).values())

    def flush(self) -> bool:
        """Bring to Redis what it does not know; False when it cannot be told just now."""
        with self._flushing:
            untold = self._tally.untold()
            if not untold:
                return True
            try:
                self._link.use(lambda redis: _add(redis, untold))
            except RedisAway:
                return False  # an answer that was lost may count twice; a count that is lost would hide an error
            self._tally.told(untold)
            return True

    def stop(self) -> None:
        """Bring the last counts to Redis, and let the thread end."""
        self._stopping.set()
        self._wanted.set()
        if self._thread is not None:
            self._thread.join(timeout=FLUSH_SECONDS * 2)
        if self._link.configured:
            self.flush()

    def after_fork(self) -> None:
        """In a child there is no thread, and nothing to tell that the parent does not tell."""
        self._start, self._flushing, self._thread = threading.Lock(), threading.Lock(), None
        self._wanted = threading.Event()
        self._tally.after_fork()

    def _begin(self) -> None:
        """An error was counted: see that the thread runs, and wake it."""
        if self._thread is None or not self._thread.is_alive():
            with self._start:
                if self._stopping.is_set():
                    return
                if self._thread is None or not self._thread.is_alive():
                    self._thread = threading.Thread(target=self._run, name="error-counts", daemon=True)
                    self._thread.start()
        self._wanted.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wanted.wait()
            self._wanted.clear()
            self._stopping.wait(FLUSH_SECONDS)  # what comes within a second is one message
            if not self.flush():
                self._wanted.set()

    def _read(self, minutes: int) -> Counts:
        """Slots and kinds of the last minutes: Redis's, and what is not told yet; or this process's alone.

        Told and read under one lock: otherwise a flush in between would be counted twice, or not at all.
        """
        with self._flushing:
            try:
                there = self._link.use(lambda redis: _fetch(redis, self._tally.slot(), minutes))
            except RedisAway:
                return self._tally.counts()
            together = Counter(there)
            together.update(self._tally.untold())
            return dict(together)

    def _within(self, counts: Counts, minutes: int) -> Counter[str]:
        oldest = self._tally.slot() - minutes * _SLOTS_A_MINUTE
        found: Counter[str] = Counter()
        for (slot, kind), number in counts.items():
            if slot >= oldest:
                found[kind] += number
        return found


def _add(redis: Redis, counts: Counts) -> None:
    pipeline = redis.pipeline(transaction=True)
    minutes = set()
    for (slot, kind), number in counts.items():
        minutes.add(slot // _SLOTS_A_MINUTE)
        pipeline.hincrby(KEY.format(minute=slot // _SLOTS_A_MINUTE), f"{slot}|{kind}", number)
    for minute in minutes:
        pipeline.expire(KEY.format(minute=minute), KEPT_SECONDS)
    pipeline.execute()


def _fetch(redis: Redis, slot: int, minutes: int) -> Counts:
    last = slot // _SLOTS_A_MINUTE
    pipeline: Any = redis.pipeline(transaction=False)
    for minute in range(last - minutes - 1, last + 1):
        pipeline.hgetall(KEY.format(minute=minute))
    counts: Counts = {}
    for fields in pipeline.execute():
        for field, number in fields.items():
            when, _, kind = field.decode().partition("|")
            counts[int(when), kind] = int(number)
    return counts


_alive: weakref.WeakSet[ErrorCounts] = weakref.WeakSet()


def _after_fork() -> None:
    for counts in list(_alive):
        counts.after_fork()


def _flush_all() -> None:
    """At a process's end: a command, or the process of one attempt, lives for less than a second."""
    for counts in list(_alive):
        counts.flush()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_flush_all)
