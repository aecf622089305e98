"""Clocks that jump by an hour: PostgreSQL's, and those of the product's own processes.

Needs libfaketime (Debian: `libfaketime`), which gives a process another time of day; the machine's own
clock is left alone.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from chaos.house import Plan, find_faketime
from chaos.stage import Disturbance, Fault, Stage

STEPS = (3600, 0, -3600, 0)


def _missing() -> str | None:
    return None if find_faketime() else "libfaketime is not installed here (Debian: apt-get install libfaketime)"


def _stepping(whose: str) -> Disturbance:
    @contextlib.contextmanager
    def disturb(stage: Stage) -> Iterator[None]:
        turn = 0

        def step() -> None:
            nonlocal turn
            stage.house.set_clock(STEPS[turn % len(STEPS)])
            turn += 1

        with stage.repeating(step, between=(15, 20) if stage.short else (6, 15), at_least=len(STEPS)):
            yield
        stage.house.set_clock(0)
        time.sleep(1.5)  # libfaketime looks once a second
        stage.notes.append(f"{whose}, by an hour forth and back")

    return disturb


FAULTS = tuple(
    Fault(
        f"clock-{whose}",
        f"clock-{whose}",
        f"the clock of {owner} jumps by an hour",
        _stepping(whose),
        events=2_000,
        plan=Plan(clock=whose),
        needs=_missing,
    )
    for whose, owner in (("database", "PostgreSQL"), ("processes", "web processes, workers and scheduler"))
)
