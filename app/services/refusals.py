"""Failed verifications of webhooks, counted by address and door, so that many of them cost little.

A door is a provider and a token. Owns what a refusal costs (a log line, a look-up), never whether something
is refused: providers share addresses among all customers, so a valid signature is accepted whatever else
came from there. In the memory of this process alone, and bounded.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass

MINUTE = 60.0
UNKNOWN_FOR_SECONDS = 2.0  # an integration made meanwhile works after that
ANY_UNKNOWN = ""  # whoever guesses tries each token once: all that are not there are told together
MOST_ENTRIES = 10_000


@dataclass(slots=True)
class _Count:
    began: float
    times: int = 0
    untold: int = 0
    unknown_until: float = 0.0


class Refusals:
    """One process's count. Thread-safe."""

    def __init__(self, most_per_minute: int) -> None:
        self._most = most_per_minute
        self._counts: OrderedDict[tuple[str, str], _Count] = OrderedDict()
        self._lock = threading.Lock()

    def note(self, address: str, door: str, *, is_unknown: bool) -> int:
        """Count one; return how many a log line is to tell of now: 1 as usual, 0 for none, or those kept back.

        Beyond the limit of a minute one line is written when it is passed, then one a minute.
        """
        now = time.monotonic()
        with self._lock:
            if not is_unknown:
                return self._count(address, door, now)
            self._count(address, door, now)
            count = self._counts[address, door]
            if count.times > self._most and now >= count.unknown_until:  # before that it was not looked for
                count.unknown_until = now + UNKNOWN_FOR_SECONDS
            return self._count(address, ANY_UNKNOWN, now)

    def is_surely_unknown(self, address: str, door: str) -> bool:
        """Whether this address asks so often for a token that was not there a moment ago that none is looked for."""
        count = self._counts.get((address, door))
        return count is not None and time.monotonic() < count.unknown_until

    def _count(self, address: str, door: str, now: float) -> int:
        count = self._counts.setdefault((address, door), _Count(now))
        self._counts.move_to_end((address, door))
        while len(self._counts) > MOST_ENTRIES:
            self._counts.popitem(last=False)
        kept_back = 0
        if now - count.began >= MINUTE:
            kept_back, count.began, count.times, count.untold = count.untold, now, 0, 0
        count.times += 1
        if count.times <= self._most + 1:
            return kept_back + 1
        count.untold += 1
        return 0
