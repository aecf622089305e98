"""Clocks that jump by an hour: PostgreSQL's, and those of the product's own processes.

A library preloaded into them (chaos/clock.c) gives them another time of day; the machine's own clock is left
alone. Needs Linux and a C compiler.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime

import requests

from chaos.house import WEBS, Plan
from chaos.stage import Disturbance, Fault, Stage

STEPS = (3600, 0, -3600, 0)
SEEN_SECONDS = 0.5  # the clock is looked at ten times a second


def _missing() -> str | None:
    if sys.platform != "linux":
        return "preloading a clock needs Linux"
    return None if shutil.which("cc") else "there is no C compiler here (cc), and a clock has to be made"


def _read(stage: Stage, whose: str) -> float:
    """What the clock says: PostgreSQL's by itself, a web process's by the date of its answers."""
    house = stage.house
    if whose == "database":
        return float(house.query("SELECT extract(epoch FROM clock_timestamp())")[0][0])
    answer = requests.get(f"http://{house.web_host(WEBS[0])}:{house.web_ports[WEBS[0]]}/health", timeout=10)
    return parsedate_to_datetime(answer.headers["Date"]).timestamp()


def _stepping(whose: str) -> Disturbance:
    @contextlib.contextmanager
    def disturb(stage: Stage) -> Iterator[None]:
        turn = 0

        def step() -> None:
            nonlocal turn
            ahead = STEPS[turn % len(STEPS)]
            stage.house.set_clock(ahead)
            turn += 1
            time.sleep(SEEN_SECONDS)
            error = abs(_read(stage, whose) - time.time() - ahead)
            if error > SEEN_SECONDS + 5:
                raise RuntimeError(f"the clock is {error:.0f} s from where it was set to")

        with stage.repeating(step, between=(15, 20) if stage.short else (6, 15), at_least=len(STEPS)):
            yield
        stage.house.set_clock(0)
        time.sleep(SEEN_SECONDS)
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
