"""Events that come several times, in any order, or kill whoever handles them."""

from __future__ import annotations

from chaos.stage import Fault, nothing
from chaos.traffic import Mix

FAULTS = (
    Fault(
        "duplicates",
        "events",
        "every event five times at once, by way of both web processes, and some again later",
        nothing,
        events=6_000,
        in_short=120,
        mix=Mix(duplicated=1.0, late_duplicates=0.3),
    ),
    Fault("out-of-order", "events", "the events of every call in any order", nothing, 6_000, mix=Mix(shuffled=1.0)),
)
