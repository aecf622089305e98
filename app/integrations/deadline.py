"""How long whoever is waiting still waits.

Owns the arithmetic between one deadline and the time limits of single tries. Monotonic: a clock that is
set back gives nobody more time. Must not sleep and must not call anyone.
"""

from __future__ import annotations

import math
import time

from app.errors import DeadlineExceeded

# Kept back from every try: to write down what came of it and to put it into words, before whoever waits for that gives
# up (`answers.SENTENCE_RESERVE_SECONDS` before the deadline). With as much as that, a caller whose calendar hung heard
# by turns "I've noted" and "I can't tell yet".
RESERVE_SECONDS = 0.6
LEAST_TRY_SECONDS = 0.05  # a shorter try could only ever time out


class Deadline:
    """A moment by which an answer must have been given; counts from when it is made."""

    __slots__ = ("_ends",)

    def __init__(self, seconds: float) -> None:
        self._ends = time.monotonic() + seconds

    @classmethod
    def within(cls, seconds: float) -> Deadline:
        """The deadline that ends ``seconds`` from now."""
        return cls(seconds)

    def remaining(self) -> float:
        """Seconds left; 0.0 when it is over, infinity when nobody waits."""
        return max(0.0, self._ends - time.monotonic())

    @property
    def expired(self) -> bool:
        """Whether nothing is left."""
        return self.remaining() <= 0.0

    def fits(self, seconds: float) -> bool:
        """Whether something that takes ``seconds`` would end in time."""
        return seconds <= self.remaining()

    def try_timeout(self, cap_seconds: float) -> float:
        """Seconds one try may take: ``cap_seconds`` at most, and never the reserve.

        Raises DeadlineExceeded(maybe_done=False) when too little is left to try at all.
        """
        seconds = min(cap_seconds, self.remaining() - RESERVE_SECONDS)
        if seconds < LEAST_TRY_SECONDS:
            raise DeadlineExceeded("no time is left for another try", maybe_done=False)
        return seconds


NO_DEADLINE = Deadline(math.inf)  # workers: nobody is on the line
