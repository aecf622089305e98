"""Threads that want the same thing at the same time do it together: one transaction, one commit, for all that is there.

Owns who does it for whom. The first to come does what is there, its own item and those that wait; what comes
meanwhile waits for the next round. Nobody waits for company: a lone thread does its own, at once. A round's failure
says nothing of any one in it, so then each thread does its own alone, within its own time. Knows nothing of what is
done.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar, cast

from app.errors import DatabaseUnavailable

MOST_IN_ROUND = 64
MOST_BYTES = 512 * 1024  # in a round; what is larger has a round of its own
IMPATIENT_SECONDS = 0.05  # a round that takes longer stands before a lock; then another may begin beside it
MOST_ROUNDS = 4  # at once, then; the connections are for others too

T = TypeVar("T")
R = TypeVar("R")


class Sized(Protocol):
    """What a round is made of. No two of the same ``key`` are in one; ``size`` is in bytes."""

    @property
    def key(self) -> Hashable:
        """What it must not meet."""

    @property
    def size(self) -> int:
        """How much of a round it takes."""


S = TypeVar("S", bound=Sized)


def fill(group: list[S], waiting: deque[S]) -> None:
    """Move what waits into the group, in its order, as much as one round holds; what does not fit goes on waiting.

    One key once, so that the second comes after the first. What is larger than a round is one alone.
    """
    keys, size, left = {one.key for one in group}, sum(one.size for one in group), deque[S]()
    while waiting and len(group) < MOST_IN_ROUND:
        one = waiting.popleft()
        if group and (one.key in keys or size + one.size > MOST_BYTES):
            left.append(one)
            continue
        group.append(one)
        keys.add(one.key)
        size += one.size
    waiting.extendleft(reversed(left))


class _Waiting(Generic[T, R]):
    """One item and its thread. ``turn`` is held until the thread may go on; the rest belongs to the rounds' lock."""

    __slots__ = ("is_done", "is_taken", "item", "key", "leads", "result", "size", "turn")

    def __init__(self, item: T, key: Hashable, size: int) -> None:
        self.item = item
        self.key = key
        self.size = size
        self.turn = threading.Lock()  # lighter than an event, and used once
        self.turn.acquire()
        self.leads = False
        self.is_taken = False
        self.is_done = False
        self.result: R | None = None


class Together(Generic[T, R]):
    """Rounds of one process. ``run`` does a list of items and returns what each came to, in the same order.

    In one round no two items have the same key. Thread-safe.
    """

    def __init__(self, run: Callable[[list[T]], list[R]]) -> None:
        self._run = run
        self._lock = threading.Lock()
        self._waiting: deque[_Waiting[T, R]] = deque()
        self._leaders = 0

    def do(self, item: T, *, key: Hashable, seconds: float, size: int = 0) -> R:
        """What the item came to, once that is committed.

        Raises what doing it alone raises, and DatabaseUnavailable when its round took longer than ``seconds``; it
        may have been done all the same then.
        """
        mine = _Waiting[T, R](item, key, size)
        with self._lock:
            if self._leaders == 0:
                self._leaders = 1
                group: list[_Waiting[T, R]] | None = self._take(mine)
            else:
                self._waiting.append(mine)
                group = None
        if group is None:
            group = self._await(mine, seconds)
        if group is not None:
            self._lead(group)
        if mine.is_done:
            return cast(R, mine.result)
        return self._run([item])[0]

    def is_idle(self) -> bool:
        """Whether nobody does anything and nobody waits."""
        with self._lock:
            return self._leaders == 0 and not self._waiting

    def waiting(self) -> int:
        """How many wait for the next round."""
        with self._lock:
            return len(self._waiting)

    def _await(self, mine: _Waiting[T, R], seconds: float) -> list[_Waiting[T, R]] | None:
        """Wait until somebody has done mine; or until it is my turn: then the round that is mine to lead."""
        if not mine.turn.acquire(timeout=min(seconds, IMPATIENT_SECONDS)):
            with self._lock:
                if not mine.is_taken and not mine.leads and self._leaders < MOST_ROUNDS:
                    self._waiting.remove(mine)
                    self._leaders += 1
                    return self._take(mine)
            if not mine.turn.acquire(timeout=max(0.0, seconds - IMPATIENT_SECONDS)):
                with self._lock:
                    if not mine.leads and not mine.is_done:
                        if not mine.is_taken:
                            self._waiting.remove(mine)
                        raise DatabaseUnavailable("the database did not do it in time")
        if not mine.leads:
            return None
        with self._lock:
            return self._take(mine)

    def _take(self, mine: _Waiting[T, R]) -> list[_Waiting[T, R]]:
        """Mine and those that wait, as many as a round holds."""
        group = [mine]
        fill(group, self._waiting)
        for one in group:
            one.is_taken = True
        return group

    def _lead(self, group: list[_Waiting[T, R]]) -> None:
        """Do a round and let its threads go on, whatever came of it; one that waits leads the next."""
        results: list[R] | None = None
        try:
            results = self._run_all(group)
        finally:
            with self._lock:
                if results is not None:
                    for one, result in zip(group, results, strict=True):
                        one.result, one.is_done = result, True
                following = self._waiting.popleft() if self._waiting else None
                if following is None:
                    self._leaders -= 1
                else:
                    following.leads = True
            if following is not None:
                following.turn.release()
            for one in group[1:]:
                one.turn.release()

    def _run_all(self, group: list[_Waiting[T, R]]) -> list[R] | None:
        """What each came to; None when it did not work together."""
        items = [one.item for one in group]
        if len(items) == 1:
            return self._run(items)
        try:
            return self._run(items)
        except Exception:  # noqa: BLE001 - whatever it is, each thread meets it alone, and says so
            return None
