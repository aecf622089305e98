"""`python -m benchmarks.scaling`: what more processes and more organizations change, on this machine.

Owns the questions: accepts by the number of web processes, deliveries by that of workers, and what an organization's
event costs when there are ten thousand of them. Sizes of one question run in turns: each number of organizations
has servers of its own.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr
from uuid import UUID

from app.interpreter import settle
from benchmarks import load, pace, report
from benchmarks.figures import Figure, Run, Spread, beside, ratios
from benchmarks.ground import PRODUCT, Ground
from benchmarks.insides import claim_milliseconds
from benchmarks.large import accept_costs
from benchmarks.peer import SOURCE
from benchmarks.product import Business, Product
from benchmarks.steady import WAITING_SECONDS, plan_texts, texts_per_second, texts_sent
from benchmarks.traffic import check
from benchmarks.until import await_until
from sandbox.standins import StandIns

PROCESSES, ORGANIZATIONS = (1, 2, 4), (10, 1_000, 10_000)
CONNECTIONS, SECONDS, MOST_PER_SECOND, RATE = 32, 6, 8000, 100
EVENTS, WAITING_EVENTS, DONE_SECONDS = 4_000, 100_000, 120.0
TEXTS_A_WORKER = 600


class Question:
    """Asked of several sizes; each answer stands beside that of the smallest."""

    def __init__(self, name: str, what: str, unit: str, sizes: Sequence[int], of: str, *, more_is_good: bool) -> None:
        self.name, self.what, self.unit, self.sizes, self.of = name, what, unit, sizes, of
        self.more_is_good = more_is_good
        self.values: dict[int, list[float]] = {size: [] for size in sizes}

    def figures(self) -> list[Figure]:
        """One a size."""
        first = self.sizes[0]
        return [
            Figure(
                f"{self.name}_{size}",
                f"{self.what}, {size:,} {self.of}",
                self.unit,
                Spread.of(self.values[size]),
                reference_name=f"with {first}",
                reference=Spread.of(self.values[first]),
                ratio=ratios(self.values[size], self.values[first]),
                at_least=self.more_is_good,
            )
            for size in self.sizes[1:]
        ]


def accepts(product: Product, doors: Sequence[Business], **web: str) -> float:
    """Accepts a second at 32 connections, to these doors in turn."""
    product.ground.empty()
    path = product.ground.folder / "requests"
    load.write_requests_for(path, [(one.target, one.secret) for one in doors], count=SECONDS * MOST_PER_SECOND)
    with product.web(**web):
        sent = load.send(product.base_url, path, connections=CONNECTIONS, seconds=SECONDS)
    check(sent, product.ground.ask(PRODUCT, "SELECT count(*) FROM webhook_delivery_log"))
    return sent.per_second


def handled(product: Product, of: Sequence[UUID], *, workers: int) -> float:
    """Deliveries a second whose handler writes a row, of these organizations in turn."""
    product.ground.empty()
    product.fill(EVENTS, kind=load.HANDLED, of=of)
    with ExitStack() as running:
        for _ in range(workers):
            running.enter_context(product.worker())
        await_until(lambda: product.finished() >= EVENTS, seconds=DONE_SECONDS)
    return product.ground.ask(
        PRODUCT,
        "SELECT 0.6 * count(*) / extract(epoch FROM percentile_disc(0.9) WITHIN GROUP (ORDER BY finished_at)"
        " - percentile_disc(0.3) WITHIN GROUP (ORDER BY finished_at)) FROM webhook_delivery_log",
    )


def waiting(product: Product, *, workers: int) -> float:
    """Texts a second to a stand-in that takes 300 ms for each."""
    with StandIns.running(latency=WAITING_SECONDS) as world:
        product.ground.empty()
        count = plan_texts(product, world, texts=workers * TEXTS_A_WORKER)
        with ExitStack() as running:
            for _ in range(workers):
                running.enter_context(product.worker(TWILIO_API_BASE_URL=world.twilio_url))
            await_until(lambda: texts_sent(product.ground) >= 0.95 * count, seconds=DONE_SECONDS)
    return texts_per_second(product.ground)


def claims(product: Product) -> float:
    """Milliseconds of a claim of 16 lanes, median, of a hundred thousand that are due, of all organizations."""
    product.ground.empty()
    product.ground.run(
        PRODUCT,
        "INSERT INTO lanes SELECT o.id, 'l' || i, now() FROM"
        " (SELECT id, row_number() OVER () - 1 AS place, count(*) OVER () AS many FROM organizations) o"
        f" JOIN generate_series(1, {WAITING_EVENTS}) i ON o.place = i % o.many",
    )
    product.ground.run(
        PRODUCT,
        "INSERT INTO webhook_delivery_log (org_id, provider, type, event_key, lane_key, next_attempt_at)"
        " SELECT org_id, 't', 't', lane_key, lane_key, now() FROM lanes",
    )
    product.ground.run(PRODUCT, "VACUUM ANALYZE lanes, webhook_delivery_log")
    return claim_milliseconds(product)


def done(product: Product, doors: Sequence[Business]) -> float:
    """Milliseconds from accepted to processed at a hundred a second, p95, when each organization has a date to come."""
    product.ground.empty()
    product.ground.run(PRODUCT, "INSERT INTO lanes SELECT id, 'later', now() + interval '1 day' FROM organizations")
    path, count = product.ground.folder / "paced", RATE * SECONDS
    with product.web(), product.worker():
        product.fill(1, kind=load.TRIVIAL)
        await_until(lambda: product.finished() >= 1, seconds=DONE_SECONDS)
        targets = [(one.target, one.secret) for one in doors]
        load.write_requests_for(path, targets, count=count, kind=load.TRIVIAL)
        pace.send(product.port, path, rate=RATE, connections=8)
        await_until(lambda: product.finished() > count, seconds=DONE_SECONDS)
    return product.ground.ask(
        PRODUCT,
        "SELECT percentile_disc(0.95) WITHIN GROUP (ORDER BY extract(epoch FROM finished_at - received_at)) * 1000"
        " FROM webhook_delivery_log WHERE event_key NOT LIKE 'fill-%'",
    )


@contextmanager
def standing(organizations: int = 1) -> Iterator[tuple[Product, list[Business]]]:
    """The product with so many organizations, on servers of its own, and their doors."""
    with Ground() as ground, (ground.folder / "here.log").open("w") as log, redirect_stderr(log):
        ground.make_peer_tables((SOURCE / "schema.sql").read_text())
        product = Product(ground)
        try:
            more = product.open_businesses([f"Business {number}" for number in range(1, organizations)])
            ground.run(PRODUCT, "VACUUM ANALYZE organizations, integrations")
            yield product, [product.business, *more]
        finally:
            product.close()


def by_processes(rounds: int, say: Callable[[str], None]) -> list[Figure]:
    """Accepts by web processes, deliveries by workers."""
    with standing() as (product, _):
        return _by_processes(product, rounds, say)


def _by_processes(product: Product, rounds: int, say: Callable[[str], None]) -> list[Figure]:
    asked: list[tuple[Question, Callable[[int], float]]] = [
        (
            Question("accepts", "accepts a second", "/s", PROCESSES, "web processes", more_is_good=True),
            lambda size: accepts(product, [product.business], WEB_CONCURRENCY=str(size)),
        ),
        (
            Question("handled", "deliveries a second with a handler", "/s", PROCESSES, "workers", more_is_good=True),
            lambda size: handled(product, [product.business.id], workers=size),
        ),
        (
            Question("waiting", "deliveries a second that wait 300 ms", "/s", PROCESSES, "workers", more_is_good=True),
            lambda size: waiting(product, workers=size),
        ),
    ]
    figures = []
    for question, ask in asked:
        say(question.what)
        runs: dict[str, Run] = {str(size): (lambda size=size, ask=ask: ask(size)) for size in question.sizes}  # type: ignore[misc]
        for size, values in beside(runs, rounds=rounds, say=say).items():
            question.values[int(size)] = values
        figures += question.figures()
    return figures


def by_organizations(rounds: int, say: Callable[[str], None]) -> list[Figure]:
    """An accept, a delivery and a claim, the more organizations there are."""

    def question(name: str, what: str, unit: str, *, more_is_good: bool = False) -> Question:
        return Question(name, what, unit, ORGANIZATIONS, "organizations", more_is_good=more_is_good)

    accepted = question("accepts_of", "accepts a second", "/s", more_is_good=True)
    buffers = question("buffers_of", "buffers of an accept", "")
    cpu = question("cpu_of", "the server's CPU for an accept", "us")
    delivered = question("handled_of", "deliveries a second with a handler", "/s", more_is_good=True)
    claimed = question("claim_of", "a claim of 16 lanes", "ms")
    soon = question("done_of", "an event until processed, p95", "ms")
    asked = (accepted, buffers, cpu, delivered, claimed, soon)
    with ExitStack() as open_:
        houses = {size: open_.enter_context(standing(size)) for size in ORGANIZATIONS}
        for number in range(rounds):
            for size, (product, doors) in list(houses.items())[:: -1 if number % 2 else 1]:
                ids = [one.id for one in doors]
                accepted.values[size].append(accepts(product, doors))
                [(touched, used)] = accept_costs([(product, ids)])
                buffers.values[size].append(touched)
                cpu.values[size].append(used)
                delivered.values[size].append(handled(product, ids, workers=1))
                claimed.values[size].append(claims(product))
                soon.values[size].append(done(product, doors))
                last = ", ".join(f"{one.values[size][-1]:,.1f}" for one in asked)
                say(f"  round {number + 1} of {rounds}: {size:,} organizations: {last}")
    return [figure for one in asked for figure in one.figures()]


PARTS = {"processes": by_processes, "organizations": by_organizations}


def main() -> int:
    """Measure and print; a whole run is published in docs/scaling.md."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=PARTS)
    given = parser.parse_args()
    if not load.has_wrk():
        print("NOT RUN: wrk is not installed")
        return 1
    terminal = sys.stderr
    settle()  # as who serves: the stand-ins are in this process
    figures = [
        figure
        for name, measure in PARTS.items()
        if given.only in (None, name)
        for figure in measure(given.rounds, lambda line: print(line, file=terminal, flush=True))
    ]
    print(report.as_table(figures))
    report.write(figures, rounds=given.rounds, page=None if given.only else report.SCALING)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
