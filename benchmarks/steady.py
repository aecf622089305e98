"""Measured under a load that is not the most there can be: how soon an event is done, how soon a caller has an answer,
and how many deliveries a worker keeps waiting on others at once.
"""

from __future__ import annotations

import secrets
import time

from sqlalchemy import text

from app.models import Integration, Organization
from app.services.credentials import parse_credentials
from app.services.messages import plan_text
from benchmarks import load, pace
from benchmarks.figures import Figure, Spread, below, beside, ratios
from benchmarks.ground import PRODUCT, Ground
from benchmarks.house import House
from benchmarks.product import ALWAYS_OPEN, Product
from benchmarks.until import await_until
from sandbox.standins import RemoteWorld, StandIns

RATE, SENDERS = 200, 8
CONVOY_MS = 127.0  # its published p95 from event to delivery, on its own machine
QUESTION = "assistant-request"
WAITING_SECONDS, THREADS = 0.3, 16
BUSINESSES, TEXTS = 100, 600
_DONE = (
    "SELECT percentile_disc(0.95) WITHIN GROUP (ORDER BY extract(epoch FROM finished_at - received_at)) * 1000"
    " FROM webhook_delivery_log WHERE provider = 'vapi' AND event_key NOT LIKE 'fill-%'"
)
_RATE = (
    "SELECT 0.8 * count(*) / extract(epoch FROM percentile_disc(0.9) WITHIN GROUP (ORDER BY finished_at)"
    " - percentile_disc(0.1) WITHIN GROUP (ORDER BY finished_at))"
    " FROM webhook_delivery_log WHERE type = 'message.send' AND finished_at IS NOT NULL"
)


def done(house: House) -> list[Figure]:
    """200 events a second: from accepted to processed, p95."""

    def once() -> float:
        house.ground.empty()
        with house.product.web(), house.product.worker():
            house.product.fill(1, kind=load.TRIVIAL)
            # The worker is there: its start is not what is measured.
            await_until(lambda: house.product.finished() >= 1, seconds=60)
            path, business = house.ground.folder / "paced.requests", house.product.business
            count = int(RATE * house.seconds)
            load.write_requests(path, target=business.target, secret=business.secret, count=count, kind=load.TRIVIAL)
            pace.send(house.product.port, path, rate=RATE, connections=SENDERS)
            await_until(lambda: house.product.finished() > count, seconds=60)
        return house.ground.ask(PRODUCT, _DONE)

    values = beside({"ours": once}, rounds=house.rounds, say=house.say)
    what = f"an event accepted until processed, p95 at {RATE}/s (Convoy publishes {CONVOY_MS:g} ms)"
    return [below("done_p95", what, "ms", values["ours"], most=CONVOY_MS)]


def answers(house: House) -> list[Figure]:
    """A caller's question that needs no provider, two at a time: our own share of the wait, p99."""
    requests = house.ground.folder / "questions.requests"

    def once() -> float:
        house.ground.empty()
        business = house.product.business
        load.write_requests(requests, target=business.target, secret=business.secret, count=8000, kind=QUESTION)
        return load.send(house.product.base_url, requests, connections=2, seconds=house.seconds).p99_ms

    with house.product.web():
        values = beside({"ours": once}, rounds=house.rounds, say=house.say)
    return [below("answer_p99", "answer to a waiting caller, our own share, p99", "ms", values["ours"], most=25.0)]


def waiting(house: House) -> list[Figure]:
    """Texts to a stand-in that takes 300 ms for each: sent a second by one worker, beside what its threads allow."""
    limit = THREADS / WAITING_SECONDS

    with StandIns.running(latency=WAITING_SECONDS) as world:

        def once() -> float:
            house.ground.empty()
            count = plan_texts(house.product, world, texts=TEXTS)
            with house.product.worker(TWILIO_API_BASE_URL=world.twilio_url):
                until = time.monotonic() + 90
                while texts_sent(house.ground) < 0.95 * count and time.monotonic() < until:
                    time.sleep(0.2)
            return texts_per_second(house.ground)

        values = beside({"ours": once}, rounds=house.rounds, say=house.say)
    return [
        Figure(
            "deliver_waiting_vs_limit",
            "deliveries a second that wait 300 ms for a provider, one worker",
            "/s",
            Spread.of(values["ours"]),
            reference_name="threads / 0.3 s",
            reference=Spread(limit, limit, limit),
            ratio=ratios(values["ours"], [limit] * len(values["ours"])),
            wanted=0.8,
        )
    ]


def plan_texts(product: Product, world: RemoteWorld, *, texts: int) -> int:
    """At least so many, of many senders that may send as fast as a short code (no rate of theirs is the limit); how
    many there are."""
    platform = product.platform
    each = -(-texts // BUSINESSES)
    with platform.database.transaction(system=True) as session:
        session.execute(text("DELETE FROM organizations WHERE name LIKE 'Sender %'"))
    for number in range(BUSINESSES):
        sid, token, sender = "AC" + secrets.token_hex(16), secrets.token_hex(16), f"+4930{number:08d}"
        world.twilio_account(sid, token, numbers=[sender])
        keys = {"account_sid": sid, "auth_token": token, "from_number": sender, "texts_per_second": "100"}
        with platform.database.transaction(system=True) as session:
            org = Organization(
                name=f"Sender {number}",
                timezone="Europe/Berlin",
                phone_number=sender,
                opening_hours=ALWAYS_OPEN,
                slot_minutes=30,
            )
            session.add(org)
            session.flush()
            sealed = platform.vault.seal(parse_credentials("twilio", keys))
            session.add(
                Integration(org_id=org.id, provider="twilio", token=secrets.token_urlsafe(12), credentials=sealed)
            )
            org_id = org.id
        with platform.database.transaction(org_id) as session:
            for count in range(each):
                to = f"+49151{number:04d}{count:04d}"
                plan_text(
                    session, org_id, to=to, body="hello", channel="sms", idempotency_key=f"k{count}", purpose="test"
                )
    return each * BUSINESSES


def texts_per_second(ground: Ground) -> float:
    """How many were sent a second, without the first tenth and the last."""
    return ground.ask(PRODUCT, _RATE)


def texts_sent(ground: Ground) -> float:
    """How many have been sent."""
    return ground.ask(
        PRODUCT, "SELECT count(*) FROM webhook_delivery_log WHERE type = 'message.send' AND finished_at IS NOT NULL"
    )
