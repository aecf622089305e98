"""What the product takes to stand there: how long it takes to begin, and the memory of its processes after work.

Owns the looking. Whether memory stays flat over an hour is the soak's to say (`make soak`).
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager

import psutil

from benchmarks import load
from benchmarks.figures import Figure, Run, Spread, beside, ratios
from benchmarks.ground import PEER, PRODUCT
from benchmarks.house import House
from benchmarks.peer import Peer
from benchmarks.until import await_until
from sandbox.children import family_of

EVENTS = 500  # that wait for a worker which begins
LOOK_SECONDS = 0.01
MOST_SECONDS = 120.0
MB = 1024 * 1024


def start(house: House) -> list[Figure]:
    """From the command until the web processes answer, and until a worker has finished the first event."""

    def web(service: AbstractContextManager[psutil.Process]) -> float:
        began = time.monotonic()
        with service:
            return time.monotonic() - began

    def until_the_first(service: AbstractContextManager[psutil.Process], database: str, done: str) -> float:
        began = time.monotonic()
        with service:
            await_until(lambda: house.ground.ask(database, done) > 0, seconds=MOST_SECONDS, every=LOOK_SECONDS)
            return time.monotonic() - began

    def ours() -> float:
        house.ground.empty()
        house.product.fill(EVENTS, kind=load.TRIVIAL)
        done = "SELECT count(*) FROM (SELECT FROM webhook_delivery_log WHERE finished_at IS NOT NULL LIMIT 1) one"
        return until_the_first(house.product.worker(), PRODUCT, done)

    def theirs(peer: Peer) -> float:
        house.ground.empty()
        peer.fill(EVENTS)
        return until_the_first(peer.worker(), PEER, "SELECT count(*) FROM (SELECT FROM event_log LIMIT 1) one")

    webs: dict[str, Run] = {"ours": lambda: web(house.product.web())}
    workers: dict[str, Run] = {"ours": ours}
    if (peer := house.peer) is not None:
        webs["peer"] = lambda: web(peer.web())
        workers["peer"] = lambda: theirs(peer)
    return [
        _figure(house, "start_web", "seconds until a web service answers", "s", webs),
        _figure(house, "start_worker", "seconds until a worker has finished its first event", "s", workers),
    ]


def memory(house: House) -> list[Figure]:
    """Resident memory of all processes of a service, after a backlog: a worker's; a web service's as it begins."""

    def ours() -> float:
        house.ground.empty()
        house.product.fill(house.backlog, kind=load.TRIVIAL)
        with house.product.worker() as process:
            await_until(lambda: house.product.finished() >= house.backlog, seconds=MOST_SECONDS, every=LOOK_SECONDS)
            return _megabytes(process)

    def theirs(peer: Peer) -> float:
        house.ground.empty()
        count = house.backlog // 2
        peer.fill(count)
        with peer.worker() as process:
            await_until(lambda: peer.finished() >= count, seconds=MOST_SECONDS, every=LOOK_SECONDS)
            return _megabytes(process)

    def web(service: AbstractContextManager[psutil.Process]) -> float:
        with service as process:
            return _megabytes(process)

    workers: dict[str, Run] = {"ours": ours}
    webs: dict[str, Run] = {"ours": lambda: web(house.product.web())}
    if (peer := house.peer) is not None:
        workers["peer"] = lambda: theirs(peer)
        webs["peer"] = lambda: web(peer.web())
    return [
        _figure(house, "memory_worker", "memory of a worker service after a backlog", "MB", workers),
        _figure(house, "memory_web", "memory of a web service, two processes and their parent", "MB", webs),
    ]


def _megabytes(process: psutil.Process) -> float:
    return float(sum(one.memory_info().rss for one in family_of(process.pid)) / MB)


def _figure(house: House, name: str, what: str, unit: str, runs: dict[str, Run]) -> Figure:
    values = beside(runs, rounds=house.rounds, say=house.say)
    if "peer" not in values:
        return Figure(name, what, unit, Spread.of(values["ours"]), reference_name="peer", not_run=house.without_peer)
    ratio = ratios(values["ours"], values["peer"])
    reference = Spread.of(values["peer"])
    return Figure(name, what, unit, Spread.of(values["ours"]), "peer", reference, ratio, at_least=False)
