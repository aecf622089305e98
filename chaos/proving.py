"""Shows that the suite would see it: every guarantee broken once, and caught as what it is.

Owns the runs of `--sabotage`. One house serves for all; its processes are started anew for each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from chaos.faults import FAULTS
from chaos.house import House
from chaos.judge import UNBALANCED
from chaos.people import Numbers
from chaos.run import Options, plan_of, run_one
from chaos.sabotage import SABOTAGES

EVENTS = 60
RECOVERY_SECONDS = 5.0  # what is broken is not waited for
IN_SHORT = ("no-dedup", "acknowledge-early")
_FAULTS = {fault.name: fault for fault in FAULTS}


@dataclass(frozen=True)
class Proof:
    """What came of one sabotage. ``found`` is how often the judge saw what it had to see."""

    name: str
    about: str
    fault: str
    caught_as: str
    found: int

    def __str__(self) -> str:
        said = f"caught {self.found} times as {self.caught_as!r}" if self.found else "NOT CAUGHT"
        return f"· {self.name} ({self.about}) under {self.fault}: {said}"


def prove(names: Sequence[str], options: Options) -> Iterator[Proof]:
    """Break each, and let the suite catch it; at the short run's speed, whatever ``options`` say."""
    options = replace(options, short=True)
    numbers = Numbers(first=options.seed * 1_000_000)
    with House(plan_of(_FAULTS["no-fault"], options), begun=False) as house:
        yield from prove_in(house, names, numbers, options)


def prove_in(house: House, names: Sequence[str], numbers: Numbers, options: Options) -> Iterator[Proof]:
    """The same in a house that is there, and that is broken afterwards."""
    options = replace(options, events=options.events or EVENTS, stories=1)
    for name in names:
        sabotage = SABOTAGES[name]
        house.break_product(name)
        fault = replace(_FAULTS[sabotage.fault], recovery_seconds=RECOVERY_SECONDS)
        row = run_one(fault, house, numbers, options).row
        if sabotage.caught_as == UNBALANCED:
            found = row.unbalanced_seconds
        else:
            found = sum(violation["kind"] == sabotage.caught_as for violation in row.violations)
        yield Proof(name, sabotage.about, fault.name, sabotage.caught_as, found)
