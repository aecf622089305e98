"""Two hosts, each with a web process and a worker; one is cut off from everything and joined again."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence

from chaos.house import Plan
from chaos.network import why_not
from chaos.stage import Fault, Stage


@contextlib.contextmanager
def _cut_off(stage: Stage) -> Iterator[None]:
    network = stage.house.network
    assert network is not None

    cuts: list[tuple[str, float, float]] = []

    def cut_one() -> None:
        host, began = stage.rng.choice(network.hosts), time.monotonic()
        host.cut_off()
        try:
            time.sleep(stage.rng.uniform(5, 15))
        finally:
            host.join_again()
        cuts.append((host.address, began, time.monotonic()))

    with stage.repeating(cut_one, between=(4, 10)):
        yield
    stage.afterwards.append(lambda _: _count_cut(stage, cuts))


def _count_cut(stage: Stage, cuts: Sequence[tuple[str, float, float]]) -> None:
    """An answer that came when the cable was back came to a caller who had been cut off."""
    for question in stage.books.questions:
        question.cut = question.cut or any(question.was_held(*cut) for cut in cuts)


FAULTS = (
    Fault(
        "host-cut-off",
        "hosts",
        "two hosts in network namespaces: one is cut off for 5 to 15 s and joined again",
        _cut_off,
        events=3_000,
        plan=Plan(hosts=2),
        needs=why_not,
    ),
)
