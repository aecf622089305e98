"""Rounds and ratios: what is compared runs side by side, in changing order, and the median of the ratios counts.

Owns the arithmetic and the shape of a figure; measures nothing itself.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

Run = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of several rounds and how far they lie apart."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """From the rounds' values, of which there is at least one."""
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing measured. ``ratio`` is ours to the reference's, round by round; None where one was NOT RUN.

    ``wanted``: the ratio (or, without a reference, the value) that is asked for; ``at_least`` says which side of it
    is good.
    """

    name: str
    what: str
    unit: str
    ours: Spread | None
    reference_name: str = ""
    reference: Spread | None = None
    ratio: Spread | None = None
    wanted: float | None = None
    at_least: bool = True
    not_run: str = ""
    beside: Mapping[str, float] = field(default_factory=dict)

    @property
    def holds(self) -> bool | None:
        """Whether what is wanted was reached; None when nothing is wanted or it was not run."""
        counted = self.ratio or (self.ours if not self.reference_name else None)
        if counted is None or self.wanted is None:
            return None
        return counted.median >= self.wanted if self.at_least else counted.median <= self.wanted

    def plain(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {**asdict(self), "holds": self.holds}


FALLEN = 1.5  # a ratio that is worse than the published one by this factor is told, and fails the run


def fallen(figures: Sequence[Figure], published: Mapping[str, float]) -> list[str]:
    """Sentences about each ratio that is worse than the ``published`` one of its name by more than a third."""
    told = []
    for figure in figures:
        before = published.get(figure.name)
        if figure.ratio is None or not before:
            continue
        now = figure.ratio.median
        if now * FALLEN < before if figure.at_least else now > before * FALLEN:
            told.append(f"{figure.name}: {now:.2f} now, {before:.2f} when it was published")
    return told


def below(name: str, what: str, unit: str, values: Sequence[float], *, most: float) -> Figure:
    """A figure without a reference, which is to be no more than ``most``."""
    return Figure(name, what, unit, Spread.of(values), wanted=most, at_least=False)


def beside(runs: Mapping[str, Run], *, rounds: int, say: Callable[[str], None]) -> dict[str, list[float]]:
    """Run each ``rounds`` times, interleaved, every second round in the opposite order."""
    values: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds):
        names = list(runs) if number % 2 == 0 else list(runs)[::-1]
        for name in names:
            values[name].append(runs[name]())
            say(f"  round {number + 1} of {rounds}: {name} {values[name][-1]:,.2f}")
    return values


def ratios(ours: Sequence[float], reference: Sequence[float]) -> Spread:
    """The spread of the rounds' ratios: neighbours in time are compared, because a shared machine changes."""
    return Spread.of([one / other for one, other in zip(ours, reference, strict=True) if other])
