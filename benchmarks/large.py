"""`python -m benchmarks.large`: what an accept, a page and a delivery cost in an inbox of ten million rows.

Owns the filling (200 organizations, small bodies, a week's dates, nothing waiting) and the questions, asked in turns of
an inbox of ten thousand rows and of one with all of them. Its table goes into docs/performance.md.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack, closing, redirect_stderr
from itertools import cycle
from uuid import UUID, uuid4

import psutil
import psycopg2
import requests

from app.models import inbox
from app.models.deliveries import UNFINISHED
from app.models.inbox import NewDelivery
from app.services import api_keys
from benchmarks import load, pace, report
from benchmarks.figures import Figure, Spread, below, ratios
from benchmarks.ground import PRODUCT, Ground
from benchmarks.product import Product
from benchmarks.until import await_until

PUBLISHED = 10_000_000  # with fewer it is a try
SMALL, ORGANIZATIONS, AT_ONCE = 10_000, 200, 500_000
EXPLAINED = 200
ACCEPTS, TURNS, ASKS, RATE, SECONDS, ROUNDS = 500, 6, 40, 100, 8, 5
MEMORY_SHARE = 4  # of the machine's memory, PostgreSQL's own cache has a quarter, as its manual advises
_ROWS = """
INSERT INTO webhook_delivery_log (org_id, integration_id, provider, type, event_key, lane_key, status, attempts,
    received_at, next_attempt_at, finished_at)
SELECT o.id, o.id, 'vapi', (ARRAY['status-update', 'speech-update', 'end-of-call-report'])[1 + n %% 3], 'large-' || n,
    'call:' || n / 30, CASE WHEN n %% 5000 = 0 THEN 'dead' ELSE 'processed' END, 1, at, at, at
FROM (SELECT n, now() - interval '7 days' * (1 - (n - %(first)s) / %(count)s::float) AS at
      FROM generate_series(%(first)s, %(first)s + %(count)s - 1) n) e
JOIN (SELECT id, row_number() OVER (ORDER BY id) - 1 AS place, count(*) OVER () AS all_of_them FROM organizations) o
    ON o.place = e.n / 30 %% o.all_of_them
"""
_REST = (
    'INSERT INTO webhook_payloads (delivery_id, org_id, body) SELECT id, org_id, \'{"type": "status-update"}\''
    " FROM webhook_delivery_log WHERE id > %(after)s AND event_key LIKE 'large-%%'",
    "INSERT INTO processed_webhook_events (integration_id, event_key, org_id) SELECT integration_id, event_key, org_id"
    " FROM webhook_delivery_log WHERE id > %(after)s AND event_key LIKE 'large-%%'",
    "INSERT INTO delivery_attempts (org_id, delivery_id, number, lane_token, process, started_at, ended_at, outcome)"
    " SELECT org_id, id, 1, 1, 'worker', received_at, finished_at, 'processed'"
    " FROM webhook_delivery_log WHERE id > %(after)s AND event_key LIKE 'large-%%'",
)


class Inbox:
    """The product's tables, growing."""

    def __init__(self, ground: Ground, product: Product) -> None:
        self.ground, self.product, self.rows = ground, product, 0
        product.open_businesses([f"Business {number}" for number in range(ORGANIZATIONS - 1)])
        self.key = api_keys.create(product.platform, product.business.id, scopes=["read"], actor="bench")["api_key"]

    def grow(self, to: int) -> None:
        """Fill up to so many rows, vacuumed and analysed as autovacuum would have left them."""
        connection = psycopg2.connect(self.ground.postgres.superuser_url(PRODUCT))
        connection.autocommit = True
        with connection.cursor() as cursor:
            while self.rows < to:
                count = min(AT_ONCE, to - self.rows)
                after = self.ground.ask(PRODUCT, "SELECT max(id) FROM webhook_delivery_log")
                cursor.execute(_ROWS, {"first": self.rows, "count": count})
                for statement in _REST:
                    cursor.execute(statement, {"after": int(after)})
                self.rows += count
                sys.stdout.write(f"  {self.rows:,} rows\n")
                sys.stdout.flush()
            cursor.execute("VACUUM ANALYZE")
            cursor.execute("CHECKPOINT")
        connection.close()


class Backend:
    """One connection that accepts, ``of`` these organizations in turn, and the server's process behind it."""

    def __init__(self, product: Product, of: Sequence[UUID]) -> None:
        self._of = cycle(of)
        self._connection = psycopg2.connect(product.ground.postgres.superuser_url(PRODUCT))
        self._connection.autocommit = True
        self._cursor = self._connection.cursor()
        self._cursor.execute(f"SET ROLE {product.platform.database.roles.intake}")
        self._process = psutil.Process(self._connection.info.backend_pid)

    def cpu(self, accepts: int) -> float:
        """Seconds that so many took, one after the other."""
        before = sum(self._process.cpu_times()[:2])
        for _ in range(accepts):
            self._cursor.execute(inbox._WEBHOOKS_MESSAGE, inbox.values_of([_event(next(self._of))]))
        return float(sum(self._process.cpu_times()[:2]) - before)

    def buffers(self) -> float:
        """How many an accept touches, the median."""
        touched: list[int] = []
        for _ in range(EXPLAINED):
            values = inbox.values_of([_event(next(self._of))])
            self._cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {inbox._WEBHOOKS_MESSAGE}", values)
            plan = self._cursor.fetchall()[0][0][0]["Plan"]
            touched.append(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])
        return statistics.median(touched)

    def close(self) -> None:
        """Let go of it."""
        self._connection.close()


def accept_costs(of: Sequence[tuple[Product, Sequence[UUID]]]) -> list[tuple[float, float]]:
    """Buffers, and microseconds of the server's CPU, of one accept alone, of each product; they take short turns."""
    with ExitStack() as open_:
        backends = [open_.enter_context(closing(Backend(product, whose))) for product, whose in of]
        for backend in backends:
            backend.cpu(10)  # what a connection does once
        seconds = [0.0] * len(backends)
        for _ in range(TURNS):
            for place, backend in enumerate(backends):
                seconds[place] += backend.cpu(ACCEPTS)
        return [
            (backend.buffers(), took / TURNS / ACCEPTS * 1e6) for backend, took in zip(backends, seconds, strict=True)
        ]


def _event(org_id: UUID) -> NewDelivery:
    key = uuid4().hex
    return NewDelivery(
        org_id=org_id,
        integration_id=UUID(int=1),
        provider="vapi",
        type="status-update",
        event_key=key,
        lane_key=f"call:{key}",
        payload={"type": "status-update", "status": "in-progress"},
    )


def accept_p95(inbox_: Inbox) -> float:
    """Milliseconds of an accept over HTTP at a hundred a second."""
    path, business = inbox_.ground.folder / "requests", inbox_.product.business
    load.write_requests(path, target=business.target, secret=business.secret, count=RATE * SECONDS)
    return statistics.quantiles(pace.send(inbox_.product.port, path, rate=RATE, connections=8), n=20)[-1]


def page_times(inbox_: Inbox) -> list[float]:
    """Milliseconds of each answer of the API to one organization: lists, filters, the next page, one delivery."""
    took: list[float] = []
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {inbox_.key}"

        def ask(path: str) -> dict[str, object]:
            began = time.perf_counter()
            answer = session.get(f"{inbox_.product.base_url}/api/v1/{path}", timeout=30)
            took.append((time.perf_counter() - began) * 1000)
            answer.raise_for_status()
            return dict(answer.json())

        for _ in range(ASKS):
            first = ask("deliveries?limit=50")
            ask(f"deliveries?limit=50&cursor={first['next_cursor']}")
            ask("deliveries?limit=50&status=dead")
            ask("deliveries?limit=200&type=end-of-call-report")
            ask(f"deliveries/{first['data'][0]['id']}")  # type: ignore[index]
            ask("calls?limit=50")
    return took


def done_p95(inbox_: Inbox) -> float:
    """Seconds from accepted to processed at a hundred a second, p95, with one worker."""
    with inbox_.product.worker():
        _await_nothing_waits(inbox_)
        since = inbox_.ground.ask(PRODUCT, "SELECT max(id) FROM webhook_delivery_log")
        accept_p95(inbox_)
        _await_nothing_waits(inbox_)
    return inbox_.ground.ask(
        PRODUCT,
        "SELECT percentile_disc(0.95) WITHIN GROUP (ORDER BY extract(epoch FROM finished_at"
        f" - received_at)) FROM webhook_delivery_log WHERE provider = 'vapi' AND id > {int(since)}",
    )


def _await_nothing_waits(inbox_: Inbox) -> None:
    waiting = f"SELECT count(*) FROM webhook_delivery_log WHERE {UNFINISHED}"
    await_until(lambda: not inbox_.ground.ask(PRODUCT, waiting), seconds=120)


def measure(inboxes: Sequence[Inbox], rounds: int) -> list[dict[str, list[float]]]:
    """Each figure of each inbox, ``rounds`` times, every second round in the opposite order."""
    found: list[dict[str, list[float]]] = [defaultdict(list) for _ in inboxes]
    for number in range(rounds):
        order = list(zip(inboxes, found, strict=True))[:: -1 if number % 2 else 1]
        costs = accept_costs([(one.product, [one.product.business.id]) for one, _ in order])
        for (_, into), (buffers, cpu) in zip(order, costs, strict=True):
            into["buffers"].append(buffers)
            into["cpu"].append(cpu)
        for one, into in order:
            with one.product.web():
                into["done"].append(done_p95(one))  # and nothing waits any more
                pages = page_times(one)
                into["page"].append(statistics.quantiles(pages, n=20)[-1])
                into["slowest"].append(max(pages))
                into["accept"].append(accept_p95(one))
    return found


def main() -> int:
    """Fill, measure, print; exit code 1 when something asked for was not reached."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large", description=__doc__)
    parser.add_argument("--rows", type=int, default=PUBLISHED)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    cache = {"shared_buffers": f"{psutil.virtual_memory().total // MEMORY_SHARE // 2**20}MB"}
    with ExitStack() as open_:
        inboxes = []
        for rows in (SMALL, given.rows):
            ground = open_.enter_context(Ground(cache))
            open_.enter_context(redirect_stderr(open_.enter_context((ground.folder / "here.log").open("w"))))
            inboxes.append(Inbox(ground, open_.enter_context(closing(Product(ground)))))
            inboxes[-1].grow(rows)
        small, large = measure(inboxes, given.rounds)
    figures = _figures(small, large, given.rows)
    print(report.as_table(figures))
    if given.rows >= PUBLISHED:
        report.write(figures, rounds=given.rounds, page=report.LARGE)
    return 0 if all(figure.holds is not False for figure in figures) else 1


def _figures(small: dict[str, list[float]], large: dict[str, list[float]], rows: int) -> list[Figure]:
    def grown(name: str, what: str, unit: str, most: float) -> Figure:
        return Figure(
            f"large_{name}",
            f"{what} at {rows:,} rows",
            unit,
            Spread.of(large[name]),
            reference_name=f"at {SMALL:,}",
            reference=Spread.of(small[name]),
            ratio=ratios(large[name], small[name]),
            wanted=most,
            at_least=False,
        )

    return [
        grown("buffers", "buffers of an accept", "", 1.1),
        grown("cpu", "the server's CPU for an accept", "us", 1.1),
        grown("accept", "an accept over HTTP, p95", "ms", 1.3),
        below("large_page", f"a page of the API at {rows:,} rows, p95", "ms", large["page"], most=500.0),
        below("large_slowest", "the slowest of them, with its queries", "ms", large["slowest"], most=100.0),
        below("large_done", f"an event until processed at {rows:,} rows, p95", "s", large["done"], most=1.0),
    ]


if __name__ == "__main__":
    raise SystemExit(main())
