"""Measured over HTTP and through whole processes: accepting, delivering, both at once, waiting callers, health.

Each function measures one thing beside its reference and returns its figures. A run begins with empty tables and
an empty Redis, and ends by counting rows: fewer than were acknowledged fails the whole benchmark.
"""

from __future__ import annotations

import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks import load
from benchmarks.figures import Figure, Run, Spread, below, beside, ratios
from benchmarks.ground import PEER, PRODUCT
from benchmarks.house import House
from benchmarks.peer import SECRET, TARGET, Peer
from benchmarks.product import await_answer
from benchmarks.until import await_until
from sandbox.children import start_child, stop_child
from sandbox.ports import LOOPBACK, free_port

CONNECTIONS = 32
USUAL_MS = 5.0  # of an answer at half the peer's peak; the pause before the next request is so much shorter
MOST_PER_SECOND = 8000  # requests there are for a second of load: more than anybody here answers
BIN = Path(sys.executable).parent
ROOT = Path(__file__).resolve().parents[1]


def accept(house: House) -> list[Figure]:
    """Signed, unique events at 32 connections, accepted a second: beside the peer, and Flask that only answers."""
    sent: dict[str, list[load.Sent]] = {"ours": [], "peer": [], "grouped peer": [], "bare Flask": []}

    def ours() -> float:
        with house.product.web():
            sent["ours"].append(_accept_ours(house, CONNECTIONS))
        return sent["ours"][-1].per_second

    def peers(name: str, peer: Peer) -> float:
        with peer.web():
            sent[name].append(_accept_peer(house, peer, CONNECTIONS))
        return sent[name][-1].per_second

    def bare() -> float:
        with _bare_flask(house) as base_url:
            requests = _requests(house, target="/webhooks/vapi/x", secret="none")
            sent["bare Flask"].append(load.send(base_url, requests, connections=CONNECTIONS, seconds=house.seconds))
        return sent["bare Flask"][-1].per_second

    runs: dict[str, Run] = {"ours": ours, "bare Flask": bare, **_of_peers(house, peers)}
    values = beside(runs, rounds=house.rounds, say=house.say)
    p99 = {name: Spread.of([one.p99_ms for one in many]).median for name, many in sent.items() if many}
    told = {f"p99 ms {name}": value for name, value in p99.items()}
    return [
        _against(house, "accept_vs_peer", "accepts a second", "/s", values, "peer", wanted=1.5, beside_=told),
        _against(house, "accept_vs_grouped_peer", "accepts a second", "/s", values, "grouped peer"),
        _against(house, "accept_vs_bare_flask", "accepts a second", "/s", values, "bare Flask", wanted=0.5),
    ]


def at_half(house: House) -> list[Figure]:
    """The slowest hundredth of accepts at half of what the peer takes at its most: the peer, and ours at that rate."""
    name, what, peer = "p99_at_half_the_peers_peak", "accepts at half the peer's peak, p99", house.peer
    if peer is None:
        return [Figure(name, what, "ms", None, not_run=house.without_peer)]
    with peer.web():
        half = _accept_peer(house, peer, CONNECTIONS).per_second / 2
    pause = 1000 * CONNECTIONS / half - USUAL_MS
    rates: dict[str, list[float]] = {"ours": [], "peer": []}

    def ours() -> float:
        with house.product.web():
            sent = _accept_ours(house, CONNECTIONS, pause_ms=pause)
        rates["ours"].append(sent.per_second)
        return sent.p99_ms

    def theirs() -> float:
        with peer.web():
            sent = _accept_peer(house, peer, CONNECTIONS, pause_ms=pause)
        rates["peer"].append(sent.per_second)
        return sent.p99_ms

    values = beside({"ours": ours, "peer": theirs}, rounds=house.rounds, say=house.say)
    told = {f"{name} /s": statistics.median(many) for name, many in rates.items()}
    return [replace(_against(house, name, what, "ms", values, "peer", wanted=1.0, beside_=told), at_least=False)]


def deliver(house: House) -> list[Figure]:
    """Events that wait, and that nobody has anything to do for: delivered a second by one worker.

    Beside it those that have a handler (it writes what a call's status is), which go one by one.
    """
    count = house.backlog

    def ours(kind: str = load.TRIVIAL, number: int = count) -> float:
        house.ground.empty()
        house.product.fill(number, kind=kind)
        with house.product.worker():
            await_until(lambda: house.product.finished() >= number, seconds=180)
        return house.ground.ask(
            PRODUCT,
            "SELECT 0.9 * count(*) / extract(epoch FROM max(finished_at) -"
            " percentile_disc(0.1) WITHIN GROUP (ORDER BY finished_at)) FROM webhook_delivery_log"
            " WHERE provider = 'vapi'",
        )

    def peers(_name: str, peer: Peer) -> float:
        house.ground.empty()
        peer.fill(count)
        with peer.worker():
            await_until(lambda: peer.finished() >= count, seconds=180)
        return house.ground.ask(
            PEER,
            "SELECT 0.9 * count(*) / extract(epoch FROM max(at) - percentile_disc(0.1) WITHIN GROUP (ORDER BY at))"
            " FROM event_log",
        )

    handled_too: dict[str, Run] = {"with a handler": lambda: ours(load.HANDLED, count // 5)}
    runs: dict[str, Run] = {"ours": ours, **handled_too, **_of_peers(house, peers)}
    values = beside(runs, rounds=house.rounds, say=house.say)
    handled = {**values, "ours": values["with a handler"]}
    what = "deliveries a second whose handler writes a row"
    return [
        _against(house, "deliver_vs_peer", "deliveries a second, nothing to do", "/s", values, "peer", wanted=5.0),
        _against(house, "deliver_vs_grouped_peer", "deliveries a second, nothing to do", "/s", values, "grouped peer"),
        _against(house, "deliver_handled_vs_peer", what, "/s", handled, "peer"),
    ]


def both(house: House) -> list[Figure]:
    """Accepted and processed at once, one web and one worker service each: processed a second, until all is done."""

    accepted: dict[str, list[float]] = {"ours": [], "peer": [], "grouped peer": []}

    def once(name: str, accept: Callable[[Path], load.Sent], requests: Path, finished: Callable[[], int]) -> float:
        began = time.monotonic()
        sent = accept(requests)
        accepted[name].append(sent.per_second)
        await_until(lambda: finished() >= sent.requests - sent.refused, seconds=180)
        return (sent.requests - sent.refused) / (time.monotonic() - began)

    def ours() -> float:
        with house.product.web(), house.product.worker():
            requests = _for_ours(house, kind=load.TRIVIAL)
            return once("ours", partial(_send_ours, house), requests, house.product.finished)

    def peers(name: str, peer: Peer) -> float:
        with peer.web(), peer.worker():
            return once(name, partial(_send_peer, house, peer), _for_peer(house), peer.finished)

    runs: dict[str, Run] = {"ours": ours, **_of_peers(house, peers)}
    values = beside(runs, rounds=house.rounds, say=house.say)
    what = "accepted and processed a second"
    told = {f"accepts {name}": statistics.median(many) for name, many in accepted.items() if many}
    return [
        _against(house, "both_vs_peer", what, "/s", values, "peer", wanted=1.5, beside_=told),
        _against(house, "both_vs_grouped_peer", what, "/s", values, "grouped peer"),
    ]


def health(house: House) -> list[Figure]:
    """How long uptime monitors wait for /health, two at a time."""
    requests = house.ground.folder / "health.requests"
    load.write_questions(requests, target="/health")
    with house.product.web():
        values = beside(
            {"ours": lambda: load.send(house.product.base_url, requests, connections=2, seconds=2).p95_ms},
            rounds=house.rounds,
            say=house.say,
        )
    return [below("health_p95", "/health, p95", "ms", values["ours"], most=5.0)]


def _accept_ours(house: House, connections: int, pause_ms: float = 0) -> load.Sent:
    return _send_ours(house, _for_ours(house), connections, pause_ms)


def _for_ours(house: House, kind: str = load.REPORT) -> Path:
    """An empty ground, and the requests to be sent next; writing these takes seconds, which are nobody's."""
    house.ground.empty()
    return _requests(house, target=house.product.business.target, secret=house.product.business.secret, kind=kind)


def _send_ours(house: House, requests: Path, connections: int = CONNECTIONS, pause_ms: float = 0) -> load.Sent:
    sent = load.send(
        house.product.base_url, requests, connections=connections, seconds=house.seconds, pause_ms=pause_ms
    )
    stored = house.ground.ask(PRODUCT, "SELECT count(*) FROM webhook_delivery_log WHERE provider = 'vapi'")
    check(sent, stored)
    return sent


def _of_peers(house: House, run: Callable[[str, Peer], float]) -> dict[str, Run]:
    """A run of each peer that can be had."""
    had = {"peer": house.peer, "grouped peer": house.grouped_peer}
    return {name: partial(run, name, peer) for name, peer in had.items() if peer is not None}


def _accept_peer(house: House, peer: Peer, connections: int, pause_ms: float = 0) -> load.Sent:
    return _send_peer(house, peer, _for_peer(house), connections, pause_ms)


def _for_peer(house: House) -> Path:
    house.ground.empty()
    return _requests(house, target=TARGET, secret=SECRET)


def _send_peer(
    house: House, peer: Peer, requests: Path, connections: int = CONNECTIONS, pause_ms: float = 0
) -> load.Sent:
    sent = load.send(peer.base_url, requests, connections=connections, seconds=house.seconds, pause_ms=pause_ms)
    check(sent, house.ground.ask(PEER, "SELECT count(*) FROM events"))
    return sent


def _requests(house: House, *, target: str, secret: str, kind: str = load.REPORT) -> Path:
    path = house.ground.folder / "requests"
    load.write_requests(path, target=target, secret=secret, count=int(house.seconds * MOST_PER_SECOND), kind=kind)
    return path


def check(sent: load.Sent, stored: float) -> None:
    """Raises RuntimeError unless all were acknowledged, and all that were are stored."""
    accepted = sent.requests - sent.refused
    if sent.refused or sent.broken or stored < accepted:
        raise RuntimeError(f"{sent.refused} refused, {sent.broken} broken, {stored:.0f} of {accepted} stored")


@contextmanager
def _bare_flask(house: House) -> Iterator[str]:
    """gunicorn with the product's own numbers of processes and threads, and nothing of the product."""
    port = free_port()
    words = [str(BIN / "gunicorn"), "-b", f"{LOOPBACK}:{port}", "-k", "gthread", "-w", "2", "--threads", "16"]
    words += ["--keep-alive", "75", "--no-control-socket", "--pythonpath", str(ROOT), "benchmarks.bare:app"]
    child = start_child(words, log_path=house.ground.folder / "bare.log", cwd=house.ground.folder)
    try:
        await_answer(f"http://{LOOPBACK}:{port}/health")
        yield f"http://{LOOPBACK}:{port}"
    finally:
        stop_child(child, with_signal=signal.SIGTERM, seconds=10)


def _against(
    house: House,
    name: str,
    what: str,
    unit: str,
    values: dict[str, list[float]],
    reference: str,
    *,
    wanted: float | None = None,
    beside_: dict[str, float] | None = None,
) -> Figure:
    ours = values["ours"]
    other = values.get(reference)
    return Figure(
        name,
        what,
        unit,
        Spread.of(ours),
        reference_name=reference,
        reference=Spread.of(other) if other else None,
        ratio=ratios(ours, other) if other else None,
        wanted=wanted,
        not_run="" if other else house.without_peer,
        beside=beside_ or {},
    )
