"""What a fault works with, and what a fault is."""

from __future__ import annotations

import contextlib
import random
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from chaos.books import Books
from chaos.house import House, Plan
from chaos.judge import Findings
from chaos.people import Business, Numbers
from chaos.traffic import Mix, Traffic


@dataclass
class Stage:
    """One fault's surroundings. ``notes`` are told beside its row of the table.

    ``afterwards`` are called with how long recovery took, before it is judged.
    """

    house: House
    rng: random.Random
    numbers: Numbers
    short: bool
    businesses: list[Business]
    traffic: Traffic
    notes: list[str] = field(default_factory=list)
    findings: Findings = field(default_factory=Findings)
    afterwards: list[Callable[[float | None], None]] = field(default_factory=list)

    @property
    def books(self) -> Books:
        """What the generator knows."""
        return self.traffic.books

    @contextlib.contextmanager
    def repeating(
        self, disturb: Callable[[], None], *, between: tuple[float, float], at_least: int = 1
    ) -> Iterator[None]:
        """Disturb at random moments, so many seconds apart, from now on; leaving waits for the last to be over."""
        ended = threading.Event()
        done: list[BaseException | None] = []

        def run() -> None:
            pace = 0.4 if self.short else 1.0
            while not ended.wait(self.rng.uniform(*between) * pace):
                try:
                    disturb()
                    done.append(None)
                except Exception as error:  # noqa: BLE001 - told below: a fault that cannot be made proves nothing
                    traceback.print_exc()
                    done.append(error)
                    return

        thread = threading.Thread(target=run, name="disturber", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
        if any(done):
            raise RuntimeError(f"the fault could not be made: {done[-1]}")
        while len(done) < at_least:
            disturb()
            done.append(None)
        self.notes.append(f"{len(done)} times")


Disturbance = Callable[[Stage], AbstractContextManager[None]]
# How fast the product's clocks run in a full run and in a short one; told above the table.
FULL = (
    ("retry_base_seconds", 2.0),
    ("unknown_lookup_seconds", 5.0),
    ("status_check_seconds", 20.0),
    ("webhook_quota_per_hour", 1_000_000),
)
SHORT = (
    ("lease_seconds", 4.0),
    ("circuit_open_seconds", 2.0),
    ("retry_base_seconds", 0.5),
    ("unknown_lookup_seconds", 1.0),
    ("status_check_seconds", 5.0),
    ("webhook_quota_per_hour", 1_000_000),
)


def load(stage: Stage, events: int) -> None:
    """Calls and texts of all organizations, until so many events are acknowledged."""
    stage.traffic.run(events)


@dataclass(frozen=True)
class Fault:
    """One thing that can go wrong. ``needs`` tells why this machine cannot make it; then it is NOT RUN.

    ``events`` are acknowledged while it is on; ``in_short`` says how many in the short run, None: not in it.
    ``drive`` is the load. ``apart``: only run when it is asked for by name or group.
    """

    name: str
    group: str
    about: str
    disturb: Disturbance
    events: int
    in_short: int | None = None
    mix: Mix = field(default_factory=Mix)
    plan: Plan = field(default_factory=Plan)
    needs: Callable[[], str | None] = lambda: None
    recovery_seconds: float = 300.0
    businesses: int = 8
    apart: bool = False
    drive: Callable[[Stage, int], None] = load


@contextlib.contextmanager
def nothing(_stage: Stage) -> Iterator[None]:
    """No fault: only the load, whose mix says what is wrong with it."""
    yield
