"""Waits until something is so, within a bound."""

from __future__ import annotations

import time
from collections.abc import Callable

LOOK_SECONDS = 0.1


def await_until(condition: Callable[[], bool], *, seconds: float, every: float = LOOK_SECONDS) -> None:
    """Return when it is so, looking ``every`` so many seconds; raises RuntimeError when it is not in time."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise RuntimeError("what waited was not done in time")
        time.sleep(every)
