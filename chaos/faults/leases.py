"""A worker paused beyond its lease, and an event that kills whoever handles it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from chaos.house import WORKERS, Plan
from chaos.judge import LATE_WRITE, LOST
from chaos.sabotage import POISON
from chaos.stage import Fault, Stage

LEASE_SECONDS = 4.0
TAKEN_SECONDS = 40.0
LATE_SECONDS = 15.0
ROUNDS = 3
MOST_TRIES = 5
_HELD = """
SELECT a.id, a.delivery_id FROM delivery_attempts a JOIN webhook_delivery_log d
ON d.org_id = a.org_id AND d.id = a.delivery_id WHERE a.ended_at IS NULL AND a.process LIKE %(process)s
AND d.type = 'message.send' AND d.org_id = ANY (CAST(%(orgs)s AS uuid[]))
AND a.started_at < clock_timestamp() - interval '0.5 s' ORDER BY a.id DESC LIMIT 1
"""  # one that has just begun may not have asked Twilio yet, and would hang anew when it goes on
_TAKEN = """
SELECT b.id, d.running_since FROM delivery_attempts b JOIN webhook_delivery_log d
ON d.org_id = b.org_id AND d.id = b.delivery_id WHERE b.delivery_id = %(delivery)s AND b.id > %(attempt)s
AND b.ended_at IS NULL AND d.status = 'processing' AND b.started_at < clock_timestamp() - interval '0.5 s'
"""  # what only finds that it came too early has ended by then; this one hangs too
_SINCE = """
SELECT b.ended_at, d.status, d.running_since, a.outcome FROM delivery_attempts b JOIN webhook_delivery_log d
ON d.org_id = b.org_id AND d.id = b.delivery_id JOIN delivery_attempts a ON a.id = %(late)s WHERE b.id = %(attempt)s
"""
_TRIES = """
SELECT d.event_key, d.status, d.error_code,
       (SELECT count(*) FROM delivery_attempts a WHERE a.org_id = d.org_id AND a.delivery_id = d.id)
FROM webhook_delivery_log d WHERE d.event_key = ANY (%(keys)s)
"""


@contextlib.contextmanager
def _paused(stage: Stage) -> Iterator[None]:
    """First one late write, watched closely; then pauses at random moments, under load."""
    house = stage.house

    def pause() -> None:
        name = stage.rng.choice(WORKERS)
        house.processes.freeze(name)
        time.sleep(house.settings.lease_seconds + stage.rng.uniform(1, 3))
        house.processes.thaw(name)

    if not any(watch_late_write(stage) for _ in range(ROUNDS)):
        raise RuntimeError("no late write came while another was at it")
    with stage.repeating(pause, between=(1, 4)):
        yield


def watch_late_write(stage: Stage) -> bool:
    """Pause a worker in the middle of a send that hangs; when another is at it, let the first one end its own.

    False when the second had ended before the first one came to write.
    """
    house = stage.house
    orgs = {"orgs": [str(business.id) for business in stage.businesses]}
    house.world.fault("twilio", "hang")
    try:
        for number in range(2):
            stage.traffic.send_text(stage.businesses[number % len(stage.businesses)])
        name, late, delivery = _await(lambda: _find_held(stage, orgs), "no send hangs")
        house.processes.freeze(name)
        # What hangs is cut, which the first one notices when it goes on; what the second asks hangs again.
        house.world.clear_faults("twilio")
        house.world.fault("twilio", "hang")
        try:
            taken = {"delivery": delivery, "attempt": late}
            mine, since = _await(lambda: _first(house.query(_TAKEN, taken)), "nobody takes the lane over")
        finally:
            house.processes.thaw(name)
        return _watch(stage, delivery, since, {"late": late, "attempt": mine})
    finally:
        house.world.clear_faults("twilio")


def _watch(stage: Stage, delivery: int, since: datetime, attempts: dict[str, int]) -> bool:
    deadline = time.monotonic() + LATE_SECONDS
    while time.monotonic() < deadline:
        ended_at, status, running_since, outcome = stage.house.query(_SINCE, attempts)[0]
        if ended_at is not None:
            return False
        if (status, running_since) != ("processing", since):
            told = f"a worker that had lost its lane made it {status} while another was at it"
            stage.findings.add(LATE_WRITE, str(delivery), told)
            return True
        if outcome != "lost":  # it has come to write: its own trace is closed, and nothing else has changed
            stage.notes.append("a late write did not win")
            return True
        time.sleep(0.02)
    return False


def _find_held(stage: Stage, orgs: dict[str, Any]) -> tuple[str, int, int] | None:
    for name in WORKERS:
        values = {**orgs, "process": f"worker:%:{stage.house.processes.pid(name)}"}
        if found := stage.house.query(_HELD, values):
            return name, *found[0]
    return None


def _first(rows: list[tuple[Any, ...]]) -> tuple[Any, ...] | None:
    return rows[0] if rows else None


def _await(look: Any, otherwise: str) -> Any:
    deadline = time.monotonic() + TAKEN_SECONDS
    while (found := look()) is None:
        if time.monotonic() > deadline:
            raise RuntimeError(otherwise)
        time.sleep(0.05)
    return found


@contextlib.contextmanager
def _poisoned(stage: Stage) -> Iterator[None]:
    """One event of each organization that kills its process; the load of the others goes on."""
    house = stage.house
    poisonous = [stage.traffic.send_report(one, reason=POISON, buried=True).key for one in stage.businesses]
    yield
    patience = 120 + house.settings.lease_seconds * 2 + house.settings.retry_base_seconds * 20
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        tried = house.query(_TRIES, {"keys": poisonous})
        if all(status == "dead" for _, status, _, _ in tried):
            break
        time.sleep(0.5)
    for key, status, code, tries in tried:
        if (status, code) != ("dead", "crashed") or tries > MOST_TRIES:
            stage.findings.add(LOST, key, f"poison is {status} {code} after {tries} tries")
    stage.notes.append(f"{len(tried)} poisonous events, tried {sorted({row[3] for row in tried})} times")


FAULTS = (
    Fault(
        "worker-paused",
        "leases",
        "a worker paused beyond its lease: its late write must not win",
        _paused,
        events=2_000,
        in_short=45,
        plan=Plan(settings=(("lease_seconds", LEASE_SECONDS),)),
    ),
    Fault(
        "poison",
        "poison",
        "events that kill whatever process handles them",
        _poisoned,
        events=1_000,
        plan=Plan(patch="poison"),
    ),
)
