"""Two hosts, each with a web process and a worker; one is cut off from everything and joined again."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from chaos.house import Plan
from chaos.network import why_not
from chaos.stage import Fault, Stage


@contextlib.contextmanager
def _cut_off(stage: Stage) -> Iterator[None]:
    network = stage.house.network
    assert network is not None

    def cut_one() -> None:
        host = stage.rng.choice(network.hosts)
        host.cut_off()
        try:
            time.sleep(stage.rng.uniform(5, 15))
        finally:
            host.join_again()

    with stage.repeating(cut_one, between=(4, 10)):
        yield


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
