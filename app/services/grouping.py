"""Requests that arrive together share one insert and one durable commit; each is answered only after it.

Owns who stores for whom. The first to come stores what is there, its own event and those that wait; what comes
meanwhile waits for the next group. Nobody waits for company: a lone request leads a group of one, at once. A group's
failure says nothing of any one in it, so then each is stored alone, by its own thread, within its own time. Knows
nothing of what an event is, but its key.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from uuid import UUID

from sqlalchemy.exc import DBAPIError

from app.database import INTAKE_TIMEOUT_MS, Database
from app.errors import ConfigurationError, DatabaseUnavailable
from app.models.inbox import NewDelivery, insert_webhooks

MOST_IN_GROUP = 64
MOST_BYTES = 512 * 1024  # of request bodies in a group; a larger one is a group of its own
IMPATIENT_SECONDS = 0.05  # a group that takes longer stands before a lock; then another may be led beside it
MOST_GROUPS = 4  # at once, then; the connections are for others too
LOCK_TIMEOUT_MS = 200  # for a lane that somebody holds a whole group does not wait; its own event alone does

Key = tuple[UUID, str]


class _Waiting:
    """One event and its thread. ``turn`` is held until the thread may go on; the rest belongs to the groups' lock."""

    __slots__ = ("delivery", "delivery_id", "is_stored", "is_taken", "key", "leads", "size", "turn")

    def __init__(self, delivery: NewDelivery, size: int) -> None:
        assert delivery.integration_id is not None
        self.delivery = delivery
        self.key: Key = (delivery.integration_id, delivery.event_key)
        self.size = size
        self.turn = threading.Lock()  # lighter than an event: it is one semaphore, and is used once
        self.turn.acquire()
        self.leads = False
        self.is_taken = False
        self.is_stored = False
        self.delivery_id: int | None = None


class Groups:
    """One process's intake. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._waiting: deque[_Waiting] = deque()
        self._leaders = 0

    def store(self, delivery: NewDelivery, *, size: int = 0) -> int | None:
        """The event's delivery id once it is committed; None when it had been stored before.

        Raises what storing it alone raises, and DatabaseUnavailable when its group was not committed in time; it
        may be stored all the same then, and is a duplicate the next time.
        """
        mine = _Waiting(delivery, size)
        with self._lock:
            if self._leaders == 0:
                self._leaders = 1
                group: list[_Waiting] | None = self._take(mine)
            else:
                self._waiting.append(mine)
                group = None
        if group is None:
            group = self._await(mine)
        if group is not None:
            self._lead(group)
        if mine.is_stored:
            return mine.delivery_id
        return self._insert([delivery]).get(mine.key)

    def _await(self, mine: _Waiting) -> list[_Waiting] | None:
        """Wait until somebody has stored mine; or until it is my turn to store: then the group that is mine to lead."""
        seconds = self._database.seconds_left(INTAKE_TIMEOUT_MS / 1000)
        if not mine.turn.acquire(timeout=min(seconds, IMPATIENT_SECONDS)):
            with self._lock:
                if not mine.is_taken and not mine.leads and self._leaders < MOST_GROUPS:
                    self._waiting.remove(mine)
                    self._leaders += 1
                    return self._take(mine)
            if not mine.turn.acquire(timeout=max(0.0, seconds - IMPATIENT_SECONDS)):
                with self._lock:
                    if not mine.leads and not mine.is_stored:
                        if not mine.is_taken:
                            self._waiting.remove(mine)
                        raise DatabaseUnavailable("the database did not store it in time")
        if not mine.leads:
            return None
        with self._lock:
            return self._take(mine)

    def _take(self, mine: _Waiting) -> list[_Waiting]:
        """Mine and those that wait, as many as one group holds; one key once, so the second comes after the first."""
        group, left = [mine], deque[_Waiting]()
        keys, size = {mine.key}, mine.size
        mine.is_taken = True
        while self._waiting and len(group) < MOST_IN_GROUP:
            one = self._waiting.popleft()
            if one.key in keys or size + one.size > MOST_BYTES:
                left.append(one)
                continue
            one.is_taken = True
            group.append(one)
            keys.add(one.key)
            size += one.size
        self._waiting.extendleft(reversed(left))
        return group

    def _lead(self, group: list[_Waiting]) -> None:
        """Store a group and let its threads go on, whatever came of it; one that waits leads the next."""
        ids: dict[Key, int] | None = None
        try:
            if len(group) > 1:
                ids = self._insert_together([one.delivery for one in group])
            else:
                ids = self._insert([group[0].delivery])
        finally:
            with self._lock:
                if ids is not None:
                    for one in group:
                        one.delivery_id, one.is_stored = ids.get(one.key), True
                following = self._waiting.popleft() if self._waiting else None
                if following is None:
                    self._leaders -= 1
                else:
                    following.leads = True
            if following is not None:
                following.turn.release()
            for one in group[1:]:
                one.turn.release()

    def _insert_together(self, deliveries: Sequence[NewDelivery]) -> dict[Key, int] | None:
        """None when it did not work: a lock, an event that the database refuses, or nobody there."""
        try:
            return self._insert(deliveries, lock_timeout_ms=LOCK_TIMEOUT_MS)
        except (DatabaseUnavailable, ConfigurationError, DBAPIError, TypeError, ValueError):
            return None

    def _insert(self, deliveries: Sequence[NewDelivery], *, lock_timeout_ms: int | None = None) -> dict[Key, int]:
        with self._database.intake(lock_timeout_ms=lock_timeout_ms) as session:
            return insert_webhooks(session, deliveries)
