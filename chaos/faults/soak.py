"""Nothing breaks for an hour but a request to a provider now and then: what the house holds must not grow."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from chaos.house import PRODUCT
from chaos.judge import BOUND
from chaos.stage import Fault, Stage
from chaos.vitals import Vitals

KINDS = ("error_500", "throttle_429", "cut_after", "slow")
PROVIDERS = ("twilio", "twilio", "google")  # texts are most of what goes out
TOLD = ("MB", "connections")


@contextlib.contextmanager
def _now_and_then(stage: Stage) -> Iterator[None]:
    """One request in about a hundred fails, each time in another way; the vitals are watched from the first on."""
    world, failed = stage.house.world, 0

    def fail() -> None:
        nonlocal failed
        world.fault(stage.rng.choice(PROVIDERS), stage.rng.choice(KINDS), times=1)
        failed += 1

    try:
        with Vitals(stage.house) as vitals, stage.repeating(fail, between=(4, 12)):
            yield
    finally:
        world.clear_faults()
    _tell(stage, vitals)


def _tell(stage: Stage, vitals: Vitals) -> None:
    for trend in vitals.trends():
        if not trend.is_flat:
            stage.findings.add(BOUND, trend.name, f"grows: {trend}")
        if trend.unit in TOLD and (trend.name not in PRODUCT or trend.name.endswith("-1")):
            stage.notes.append(str(trend))


FAULTS = (
    Fault(
        "soak",
        "soak",
        "an hour's load of 200 organizations, a request to a provider in a hundred fails",
        _now_and_then,
        events=144_000,
        businesses=200,
        apart=True,
    ),
)
