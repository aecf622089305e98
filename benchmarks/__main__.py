"""`python -m benchmarks`: measure, print the table, write results.json and, unless ``--quick``, docs/performance.md."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import redirect_stderr

from app.interpreter import settle
from app.observability.logging import configure_logging
from benchmarks import insides, load, peer, report, resources, steady, traffic
from benchmarks.figures import Figure, fallen
from benchmarks.ground import Ground
from benchmarks.house import House
from benchmarks.peer import Peer
from benchmarks.product import Product

MEASURES: dict[str, Callable[[House], list[Figure]]] = {
    "accept": traffic.accept,
    "at_half": traffic.at_half,
    "deliver": traffic.deliver,
    "waiting": steady.waiting,
    "both": traffic.both,
    "done": steady.done,
    "answers": steady.answers,
    "health": traffic.health,
    "breaker": insides.breaker,
    "claim": insides.claim,
    "behind_a_backlog": insides.behind_a_backlog,
    "cleanup": insides.cleanup,
    "start": resources.start,
    "memory": resources.memory,
}
NEEDS_WRK = ("accept", "at_half", "both", "health", "answers")


def main() -> int:
    """Run what was asked for.

    Exit code 1 when something asked for was not reached in a full run, or a ratio of a quick one has fallen by a third.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few short rounds; only judged beside what was published")
    parser.add_argument("--only", choices=MEASURES, action="append", help="this measure; may be repeated")
    parser.add_argument("--rounds", type=int, help="rounds of each measure")
    given = parser.parse_args()
    rounds = given.rounds or (2 if given.quick else 5)
    without_peer = peer.install()
    figures: list[Figure] = []
    terminal = sys.stderr
    with Ground() as ground, (ground.folder / "here.log").open("w") as log, redirect_stderr(log):
        product = Product(ground)
        configure_logging(product.settings)  # what is measured in this process speaks too, and not to the terminal
        settle()  # as who serves: a collection of all of this took a stand-in of 300 ms another 200
        house = House(
            ground,
            product,
            None if without_peer else Peer(ground),
            None if without_peer else Peer(ground, grouped=True),
            without_peer or "",
            rounds,
            seconds=3 if given.quick else 8,
            backlog=5_000 if given.quick else 20_000,
            say=lambda line: print(line, file=terminal, flush=True),
        )
        try:
            for name in given.only or MEASURES:
                if name in NEEDS_WRK and not load.has_wrk():
                    figures.append(Figure(name, name, "", None, not_run="wrk is not installed"))
                    continue
                house.say(name)
                figures += MEASURES[name](house)
        finally:
            product.close()
    worse = fallen(figures, report.published_ratios()) if given.quick else []
    report.write(figures, rounds=rounds, page=None if given.quick or given.only else report.USUAL)
    print(report.as_table(figures))
    for line in worse:
        print(f"fallen by more than a third: {line}")
    if given.quick:
        return 1 if worse else 0
    return 0 if all(figure.holds is not False for figure in figures) else 1


if __name__ == "__main__":
    raise SystemExit(main())
