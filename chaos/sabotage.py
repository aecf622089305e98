"""Guarantees broken on purpose, so that the suite shows that it would see it.

Each patch takes one guarantee out of the product, in memory, at a process's start (chaos/startup/); there is
no switch for it in the product. Owns the patches, and under which fault each must be caught as what.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

from chaos.judge import DISORDER, DOUBLED, LATE, LATE_WRITE, LOST, UNBALANCED

POISON = "chaos-poison"


@dataclass(frozen=True)
class Sabotage:
    """``fault`` is what it is run under, ``caught_as`` what the judge must call it."""

    about: str
    fault: str
    caught_as: str
    patch: Callable[[], None]


def _put(owner: object, name: str, broken: object) -> None:
    setattr(owner, name, broken)


def _no_dedup() -> None:
    """Every copy of an event is a new one, by its key and by its text's SID."""
    from app.models import messages
    from app.services import intake

    as_delivery, insert_message = intake.as_delivery, messages.insert_message

    def each_anew(*given: Any, **more: Any) -> Any:
        delivery = as_delivery(*given, **more)
        return replace(delivery, event_key=f"{delivery.event_key}#{uuid4()}")

    def without_sid(session: Any, **facts: Any) -> Any:
        if facts.get("direction") == "inbound":
            facts["provider_sid"] = None
        return insert_message(session, **facts)

    _put(intake, "as_delivery", each_anew)
    _put(messages, "insert_message", without_sid)


def _acknowledge_early() -> None:
    """A webhook is answered first and stored a moment later."""
    from app.services import intake

    accept, accept_together = intake.accept, intake.accept_together

    def later(*given: Any) -> Any:
        threading.Timer(0.5, accept, given).start()
        return intake.Accepted(None)

    def all_later(platform: Any, events: Any) -> Any:
        threading.Timer(0.5, accept_together, (platform, events)).start()
        return [intake.Accepted(None) for _ in events]

    _put(intake, "accept", later)
    _put(intake, "accept_together", all_later)


def _send_again() -> None:
    """The client repeats a send that got no answer, as a retry in an HTTP library would."""
    from app.errors import DeadlineExceeded, ProviderUnavailable
    from app.integrations.twilio import TwilioMessages

    send = TwilioMessages.send

    def twice(*given: Any, **more: Any) -> Any:
        try:
            return send(*given, **more)
        except (ProviderUnavailable, DeadlineExceeded):
            return send(*given, **more)

    _put(TwilioMessages, "send", twice)


def _no_fencing() -> None:
    """Whoever comes back writes, whether or not the lane is still theirs."""
    from sqlalchemy import text

    from app.models import lanes, recorded, sending

    end_held = recorded._END_HELD.text
    begin_sending, whose = (
        sending.begin_sending,
        text("SELECT token FROM lanes WHERE org_id = :org AND lane_key = :key"),
    )

    def begin_anyhow(asks: Any, org_id: Any, message_id: Any, **given: Any) -> bool:
        for row in asks.execute(whose, {"org": org_id, "key": given["lane_key"]}).all():
            given["token"] = row.token
        return begin_sending(asks, org_id, message_id, **given)

    def lock_anyhow(session: Any, held: list[tuple[Any, str, int]]) -> set[int]:
        found = text("SELECT 1 FROM lanes WHERE org_id = :org AND lane_key = :key FOR UPDATE")
        return {
            token
            for org_id, lane_key, token in sorted(held)
            if session.execute(found, {"org": org_id, "key": lane_key}).first() is not None
        }

    _put(lanes, "is_held", lambda *_: True)
    _put(sending, "begin_sending", begin_anyhow)
    _put(lanes, "lock_all_held", lock_anyhow)
    for fence, gap in ((" AND l.token = h.token", ""), ("l.lane_key, l.token FROM", "l.lane_key, h.token FROM")):
        assert end_held.count(fence) == 1
        end_held = end_held.replace(fence, gap)
    _put(recorded, "_END_HELD", text(end_held))


def _any_order() -> None:
    """What waits in a lane is handled the last first."""
    from app.models import lanes

    claim_lanes = lanes.claim_lanes

    def backwards(*given: Any, **more: Any) -> Any:
        claim = claim_lanes(*given, **more)
        turned = [replace(lane, deliveries=tuple(reversed(lane.deliveries))) for lane in claim.lanes]
        return replace(claim, lanes=turned)

    _put(lanes, "claim_lanes", backwards)


def _done_before() -> None:
    """A delivery is written down as processed before its handler has run."""
    from app.models import attempts, lanes
    from app.models.recorded import Ending
    from app.services import delivery

    run = delivery._run

    def record_first(platform: Any, lane: Any, queued: Any) -> Any:
        with platform.database.transaction(system=True) as session:
            if lanes.lock_held(session, lane.org_id, lane.lane_key, lane.token):
                done = Ending("processed", "processed")
                attempts.end(session, done, org_id=lane.org_id, delivery_id=queued.id)
        time.sleep(0.2)
        return run(platform, lane, queued)

    _put(delivery, "_run", record_first)


def _wrong_books() -> None:
    """One group of webhooks in ten is counted once more than it was stored."""
    from sqlalchemy import text

    from app.services.grouping import Groups

    once_more = text("INSERT INTO ledger_entries (org_id, provider, accepted) VALUES (:org, :provider, 1)")
    insert = Groups._insert

    def miscount(self: Any, deliveries: Any, *given: Any, **named: Any) -> Any:
        stored = insert(self, deliveries, *given, **named)
        if random.random() < 0.1:
            with self._database.intake() as session:
                session.execute(once_more, {"org": deliveries[0].org_id, "provider": deliveries[0].provider})
        return stored

    _put(Groups, "_insert", miscount)


def _dead_air() -> None:
    """A caller's answer waits for something without a bound."""
    from app.services import answers

    answer = answers.answer

    def slowly(*given: Any) -> Any:
        if any(getattr(one, "awaits_answer", "") == "tool-calls" for one in given):  # a greeting has to be taken first
            time.sleep(6)
        return answer(*given)

    _put(answers, "answer", slowly)


def _poison() -> None:
    """Not a guarantee: a report that kills whatever process handles it."""
    from app.services import handlers

    report = handlers._HANDLERS["vapi", "end-of-call-report"]

    def swallow(work: Any) -> Any:
        if (work.delivery.body or {}).get("endedReason") == POISON:
            os.kill(os.getpid(), signal.SIGKILL)
        return report(work)

    handlers._HANDLERS["vapi", "end-of-call-report"] = swallow


SABOTAGES = {
    "no-dedup": Sabotage("copies of an event are new events", "duplicates", DOUBLED, _no_dedup),
    "acknowledge-early": Sabotage("2xx before the commit", "web-killed", LOST, _acknowledge_early),
    "send-again": Sabotage("a send without an answer is repeated", "twilio-cut-after", DOUBLED, _send_again),
    "done-before": Sabotage("processed before it is handled", "worker-killed", LOST, _done_before),
    "no-fencing": Sabotage("a late write wins", "worker-paused", LATE_WRITE, _no_fencing),
    "any-order": Sabotage("the last of a lane first", "twilio-slow", DISORDER, _any_order),
    "wrong-books": Sabotage("some webhooks are booked twice", "no-fault", UNBALANCED, _wrong_books),
    "dead-air": Sabotage("an answer takes six seconds", "no-fault", LATE, _dead_air),
}
PATCHES = {**{name: sabotage.patch for name, sabotage in SABOTAGES.items()}, "poison": _poison}


def apply(name: str) -> None:
    """Break it, in this process."""
    PATCHES[name]()
