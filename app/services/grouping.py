"""Grouped intake: webhooks that arrive together share one insert and one durable commit, and are answered after it.

Owns what a group of events waits for: a lane that somebody holds holds up its own event, not a group.
"""

from __future__ import annotations

from app.database import INTAKE_TIMEOUT_MS, Database
from app.models.inbox import NewDelivery, insert_webhooks_at_once
from app.services.together import Together

LOCK_TIMEOUT_MS = 200


class Groups:
    """One process's intake. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.rounds: Together[NewDelivery, int | None] = Together(self._run)

    def store(self, delivery: NewDelivery, *, size: int = 0) -> int | None:
        """The event's delivery id once it is committed; None when it had been stored before. ``size``: its body's.

        Raises what storing it alone raises, and DatabaseUnavailable when its group was not committed in time; it
        may be stored all the same then, and is a duplicate the next time.
        """
        seconds = self._database.seconds_left(INTAKE_TIMEOUT_MS / 1000)
        key = (delivery.integration_id, delivery.event_key)
        return self.rounds.do(delivery, key=key, seconds=seconds, size=size)

    def store_all(self, deliveries: list[NewDelivery]) -> list[int | None]:
        """The same for events that somebody has grouped already, whose keys differ: all of them, or none.

        A lane that somebody holds fails the group, also a group of one, after a short while.
        """
        return self._insert(deliveries, lock_timeout_ms=LOCK_TIMEOUT_MS)

    def _run(self, deliveries: list[NewDelivery]) -> list[int | None]:
        return self._insert(deliveries, lock_timeout_ms=LOCK_TIMEOUT_MS if len(deliveries) > 1 else None)

    def _insert(self, deliveries: list[NewDelivery], lock_timeout_ms: int | None) -> list[int | None]:
        ids = insert_webhooks_at_once(self._database, deliveries, lock_timeout_ms=lock_timeout_ms)
        return [ids.get((one.integration_id, one.event_key)) for one in deliveries if one.integration_id is not None]
