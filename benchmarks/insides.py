"""Measured inside one process: a breaker's decision, what a claim costs when the inbox is full, how fast cleanup is."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from uuid import uuid4

from circuitbreaker import CircuitBreaker

from app.integrations.breaker import VAPI, circuits, protected
from app.models import lanes
from app.models.inbox import NewDelivery, insert_webhooks
from app.services.cleanup import clean_up
from benchmarks.figures import Figure, Spread, below, beside, ratios
from benchmarks.ground import PRODUCT
from benchmarks.house import House
from benchmarks.product import Product

DECISIONS = 20_000
BACKLOG = 100_000
ORGANIZATIONS = 10_000
CLAIMS = 100
EXPIRED = 20_000


_OLD = (
    "INSERT INTO webhook_delivery_log (org_id, integration_id, provider, type, event_key, lane_key, status,"
    " received_at, next_attempt_at, finished_at)"
    " SELECT o.id, o.id, 'vapi', 'speech-update', 'old-' || n, 'call:' || n, 'processed', at, at, at"
    f" FROM organizations o, generate_series(1, {EXPIRED}) n, LATERAL (SELECT now() - interval '20 days' AS at) a"
    " WHERE o.name = 'North Street Salon'",
    "INSERT INTO processed_webhook_events (integration_id, event_key, org_id)"
    " SELECT integration_id, event_key, org_id FROM webhook_delivery_log",
    "INSERT INTO webhook_payloads (delivery_id, org_id, body)"
    " SELECT id, org_id, jsonb_build_object('filler', repeat('x', 400)) FROM webhook_delivery_log",
    "VACUUM ANALYZE webhook_delivery_log, webhook_payloads, processed_webhook_events",
)


def breaker(house: House) -> list[Figure]:
    """What a closed circuit costs a call: shared by all processes, beside the package's own in one process."""
    circuits.connect(house.product.platform.redis, 30.0)
    ours = protected(VAPI)(_nothing)
    package = CircuitBreaker(failure_threshold=3, name="alone")(_nothing)
    values = beside(
        {"ours": lambda: _microseconds(ours)[0], "package": lambda: _microseconds(package)[0]},
        rounds=house.rounds,
        say=house.say,
    )
    slowest = _microseconds(ours)[1]
    return [
        Figure(
            "breaker_decision",
            "a closed circuit's decision, median",
            "us",
            Spread.of(values["ours"]),
            reference_name="the package alone",
            reference=Spread.of(values["package"]),
            ratio=ratios(values["ours"], values["package"]),
            at_least=False,
            beside={"p99 us": slowest},
        ),
        below("breaker_median", "a closed circuit's decision, against a limit", "us", values["ours"], most=50.0),
    ]


def claim(house: House) -> list[Figure]:
    """A claim of 16 lanes among 100,000 events of one organization, 100,000 behind a head, 10,000 organizations."""
    _fill(house)
    values = beside({"ours": lambda: claim_milliseconds(house.product)}, rounds=house.rounds, say=house.say)
    return [below("claim", "a claim of 16 lanes, median", "ms", values["ours"], most=20.0)]


def behind_a_backlog(house: House) -> list[Figure]:
    """Another organization's new event behind 100,000 of one: how long until it is done, by one worker."""
    house.ground.empty()
    house.product.fill(BACKLOG if house.seconds > 5 else BACKLOG // 10, kind="speech-update")
    other = house.product.open_business("Harbour Dental")

    def once() -> float:
        key = uuid4().hex
        event = NewDelivery(
            org_id=other.id,
            integration_id=uuid4(),
            provider="vapi",
            type="speech-update",
            event_key=key,
            lane_key=f"fill:{key}",
            payload={},
        )
        with house.product.platform.database.intake() as session:
            (delivery_id,) = insert_webhooks(session, [event]).values()
        house.product.platform.bell.ring()
        question = (
            "SELECT extract(epoch FROM a.started_at - d.received_at) FROM webhook_delivery_log d"
            f" JOIN delivery_attempts a ON a.delivery_id = d.id WHERE d.id = {delivery_id}"
        )
        until = time.monotonic() + 30
        while time.monotonic() < until:
            if house.ground.ask(PRODUCT, f"SELECT count(*) FROM delivery_attempts WHERE delivery_id = {delivery_id}"):
                return house.ground.ask(PRODUCT, question)
            time.sleep(0.02)
        raise RuntimeError("an event behind a backlog was not begun within 30 s")

    with house.product.worker():
        until = time.monotonic() + 30
        while not house.product.finished() and time.monotonic() < until:
            time.sleep(0.1)
        values = beside({"ours": once}, rounds=house.rounds, say=house.say)
    what = "another's event behind a backlog, until it begins"
    return [below("behind_a_backlog", what, "s", values["ours"], most=1.0)]


def cleanup(house: House) -> list[Figure]:
    """Deliveries that are old, with their payloads and keys: gone a second, its rests for others' sake included."""

    def once() -> float:
        house.ground.empty()
        for statement in _OLD:
            house.ground.run(PRODUCT, statement)
        began = time.monotonic()
        gone = int(clean_up(house.product.platform)["deliveries"])
        if gone < EXPIRED:
            raise RuntimeError(f"{gone} of {EXPIRED} old deliveries are gone")
        return gone / (time.monotonic() - began)

    values = beside({"ours": once}, rounds=house.rounds, say=house.say)
    return [
        Figure("cleanup", "old deliveries removed a second, with all that is theirs", "/s", Spread.of(values["ours"]))
    ]


def _nothing() -> None:
    return None


def _microseconds(call: Callable[[], object]) -> tuple[float, float]:
    """Median and 99th percentile of one call."""
    took = []
    for _ in range(DECISIONS):
        began = time.perf_counter_ns()
        call()
        took.append((time.perf_counter_ns() - began) / 1000)
    return statistics.median(took), statistics.quantiles(took, n=100)[-1]


def claim_milliseconds(product: Product) -> float:
    """Of one claim of 16 lanes, going on from turn to turn; the median."""
    after, took = lanes.FIRST_ORG, []
    for _ in range(CLAIMS):
        began = time.perf_counter()
        with product.platform.database.transaction(system=True) as session:
            found = lanes.claim_lanes(session, after=after, most=16, per_org=12, lease_seconds=60, full=[])
        took.append((time.perf_counter() - began) * 1000)
        after = found.next_org or lanes.FIRST_ORG
    return statistics.median(took)


def _fill(house: House) -> None:
    """As in the test of claims at scale: written by the database itself, because it is a lot."""
    house.ground.empty()
    columns = "(org_id, provider, type, event_key, lane_key, next_attempt_at)"
    for statement in (
        f"INSERT INTO lanes SELECT '{uuid4()}', 'l' || i, now() FROM generate_series(1, {BACKLOG}) i",
        f"INSERT INTO webhook_delivery_log {columns} SELECT org_id, 't', 't', lane_key, lane_key, now() FROM lanes",
        f"INSERT INTO lanes VALUES ('{uuid4()}', 'head', now() + interval '1 hour')",
        f"INSERT INTO webhook_delivery_log {columns} SELECT org_id, 't', 't', 'b' || i, 'head', due_at"
        f" FROM lanes, generate_series(1, {BACKLOG}) i WHERE lane_key = 'head'",
        f"INSERT INTO lanes SELECT gen_random_uuid(), 'one', now() FROM generate_series(1, {ORGANIZATIONS})",
        f"INSERT INTO webhook_delivery_log {columns} SELECT org_id, 't', 't', 'c', 'one', now()"
        " FROM lanes WHERE lane_key = 'one'",
        "VACUUM ANALYZE lanes, webhook_delivery_log",
    ):
        house.ground.run(PRODUCT, statement)
