"""Holds the product to the generator's own list: what was lost, what happened twice, what was out of order.

Owns the rules of judgement. Events are looked for in the product's tables, effects at the stand-ins alone.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import psycopg2

from chaos.books import LONGEST_ANSWER_SECONDS, Books, Event, Question
from chaos.effects import Effects
from chaos.people import Business

LOST, DOUBLED, DISORDER, LATE, HALF = "lost", "doubled", "out of order", "late answer", "half done"
LATE_WRITE, UNBALANCED, BOUND = "late write", "books", "bound missed"
LOOK_SECONDS = 0.25

_DELIVERIES = """
SELECT org_id::text, event_key, status, coalesce(error_code, '') FROM webhook_delivery_log
WHERE org_id = ANY (CAST(%(orgs)s AS uuid[])) AND integration_id IS NOT NULL
"""
# What is only a net for later, or the calendar's own round, is not waited for.
_OPEN = """
SELECT (SELECT count(*) FROM webhook_delivery_log WHERE org_id = ANY (CAST(%(orgs)s AS uuid[]))
        AND status IN ('received', 'processing', 'retrying')
        AND type NOT IN ('message.check', 'appointment.finish', 'calendar.sync', 'calendar.watch'))
     + (SELECT count(*) FROM appointments WHERE org_id = ANY (CAST(%(orgs)s AS uuid[])) AND calendar_action IS NOT NULL)
"""
_LEFT = """
SELECT type, status, coalesce(error_code, ''), attempts, coalesce(waiting_on, ''), set_aside_at IS NOT NULL,
       round(extract(epoch FROM next_attempt_at - now()))::int, count(*), min(id)
FROM webhook_delivery_log
WHERE org_id = ANY (CAST(%(orgs)s AS uuid[])) AND status IN ('received', 'processing', 'retrying')
AND type NOT IN ('message.check', 'appointment.finish', 'calendar.sync', 'calendar.watch') GROUP BY 1, 2, 3, 4, 5, 6, 7
UNION ALL
SELECT 'appointment', status, calendar_action, 0, '', false, round(extract(epoch FROM now() - created_at))::int,
       count(*), NULL
FROM appointments
WHERE org_id = ANY (CAST(%(orgs)s AS uuid[])) AND calendar_action IS NOT NULL GROUP BY 2, 3, 7
"""
# By the ids of attempts and not by dates: a clock that is set back must not look like disorder.
_DISORDER = """
WITH tried AS (
    SELECT delivery_id, min(id) AS first, max(id) AS last FROM delivery_attempts
    WHERE org_id = ANY (CAST(%(orgs)s AS uuid[])) GROUP BY delivery_id
), placed AS (
    SELECT d.id, d.event_key, t.first, max(t.last) OVER (PARTITION BY d.org_id, d.lane_key ORDER BY d.id
           ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
    FROM webhook_delivery_log d JOIN tried t ON t.delivery_id = d.id WHERE d.org_id = ANY (CAST(%(orgs)s AS uuid[]))
)
SELECT id::text, event_key FROM placed WHERE first < before ORDER BY id
"""
# A check waits for a quarter of an hour by plan, in a lane of its own.
_ASIDE = """
SELECT id::text, event_key FROM webhook_delivery_log
WHERE org_id = ANY (CAST(%(orgs)s AS uuid[])) AND set_aside_at IS NOT NULL
AND type <> 'message.check' ORDER BY id
"""
_CALLS = """
SELECT vapi_call_id FROM calls WHERE org_id = ANY (CAST(%(orgs)s AS uuid[]))
AND status = 'ended' AND transcript IS NOT NULL AND cost IS NOT NULL
"""
_BOOKED = """
SELECT name FROM appointments WHERE org_id = ANY (CAST(%(orgs)s AS uuid[])) AND status IN ('pending', 'booked')
"""


class Asks(Protocol):
    """What the judge needs of a house."""

    def query(self, statement: str, values: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Rows of the product's database."""


@dataclass(frozen=True)
class Violation:
    """A broken promise: what, about whom (an event, a call or a number that `story` knows), and how it was seen."""

    kind: str
    subject: str
    told: str


@dataclass
class Findings:
    """What the judge found. ``aside``: heads that were set aside, which others may have overtaken."""

    violations: list[Violation] = field(default_factory=list)
    aside: list[str] = field(default_factory=list)

    def add(self, kind: str, subject: str, told: str) -> None:
        """One more."""
        self.violations.append(Violation(kind, subject, told))

    def count(self, kind: str) -> int:
        """How many of a kind."""
        return sum(violation.kind == kind for violation in self.violations)


def await_done(house: Asks, businesses: Sequence[Business], *, seconds: float) -> float | None:
    """Wait until nothing accepted is unfinished; how long that took, or None when the time is up."""
    began = time.monotonic()
    values = {"orgs": _ids(businesses)}
    while time.monotonic() - began < seconds:
        try:
            if house.query(_OPEN, values)[0][0] == 0:
                return time.monotonic() - began
        except psycopg2.Error:
            pass  # the database is not back yet
        time.sleep(LOOK_SECONDS)
    return None


def left_over(house: Asks, businesses: Sequence[Business]) -> list[str]:
    """What is unfinished, in words: kinds of deliveries and when they are due, appointments that Google lacks."""
    return [" ".join(str(value) for value in row) for row in house.query(_LEFT, {"orgs": _ids(businesses)})]


def judge(house: Asks, businesses: Sequence[Business], books: Books, effects: Effects) -> Findings:
    """Everything there is to find, when all work is done."""
    findings = Findings()
    values = {"orgs": _ids(businesses)}
    stored: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for org_id, key, status, code in house.query(_DELIVERIES, values):
        stored[org_id, key].append((status, code))
    whole_calls = {row[0] for row in house.query(_CALLS, values)}
    for event in books.events:
        _judge_event(findings, event, stored[str(event.business.id), event.key])
        if event.key.startswith("end-of-call-report:") and event.acknowledged_at and not event.buried:
            call_id = event.key.partition(":")[2]
            if call_id not in whole_calls:
                findings.add(LOST, call_id, "the call's report was acknowledged, and its record is not complete")
        if event.reply_to:
            _judge_reply(findings, event, effects)
    booked = {row[0] for row in house.query(_BOOKED, values)}
    for question in books.questions:
        _judge_question(findings, question, effects, booked)
    _judge_order(findings, books, effects)
    for number, key in house.query(_DISORDER, values):
        findings.add(DISORDER, number, f"{key} was begun before an earlier one of its lane had ended")
    findings.aside = [f"{number} {key}" for number, key in house.query(_ASIDE, values)]
    return findings


def _judge_event(findings: Findings, event: Event, rows: list[tuple[str, str]]) -> None:
    if len(rows) > 1:
        findings.add(DOUBLED, event.key, f"stored {len(rows)} times; posted {event.posts} times")
    if event.acknowledged_at is None:
        return
    if not rows:
        findings.add(LOST, event.key, f"acknowledged {event.acks} times, and nothing is stored")
        return
    status, code = rows[0]
    wanted = ("dead",) if event.buried else ("processed", "skipped")
    if status not in wanted:
        findings.add(LOST, event.key, f"acknowledged, and it is {status} {code}".rstrip())


def _judge_reply(findings: Findings, event: Event, effects: Effects) -> None:
    assert event.reply_to is not None
    texts = effects.texts_to(event.business, event.reply_to)
    if len(texts) > 1:
        findings.add(DOUBLED, event.reply_to, f"{len(texts)} texts were sent as the answer to one ({event.key})")
    elif not texts and event.acknowledged_at is not None:
        findings.add(LOST, event.reply_to, f"no text was sent as the answer to {event.key}")


def _judge_question(findings: Findings, question: Question, effects: Effects, booked: set[str]) -> None:
    if question.seconds > LONGEST_ANSWER_SECONDS and not question.cut:
        findings.add(LATE, question.call_id, f"the answer took {question.seconds:.1f} s")
    if not question.cut and not question.said:
        findings.add(LATE, question.call_id, f"no sentence came (HTTP {question.status})")
    if question.tool == "send_text":
        times = effects.texts_to(question.business, question.phone).count(question.words)
        _judge_times(findings, question, times, "texts")
    elif question.tool == "book_appointment":
        times = effects.events_at(question.business, question.slot)
        _judge_times(findings, question, times, "events in the calendar")
        if (question.words in booked) != (times > 0):
            findings.add(HALF, question.call_id, f"booked here: {question.words in booked}, in the calendar: {times}")
        texts = effects.texts_to(question.business, question.phone)
        if len(texts) > 1:
            findings.add(DOUBLED, question.phone, f"{len(texts)} texts were sent about one booking")
        elif times and not texts:
            findings.add(LOST, question.phone, "it is booked, and no confirmation was sent")


def _judge_times(findings: Findings, question: Question, times: int, what: str) -> None:
    if times > 1:
        findings.add(DOUBLED, question.phone, f"{times} {what} for one question ({question.tool_call_id})")
    elif question.promised and not times:
        findings.add(LOST, question.phone, f"the caller was told {question.said!r}, and there are no {what}")


def _judge_order(findings: Findings, books: Books, effects: Effects) -> None:
    """The texts that a customer was promised one after the other arrived at Twilio in that order."""
    promised: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    business_of = {}
    for question in books.questions:
        if question.tool == "send_text" and question.promised:
            promised[question.business.account_sid, question.phone][question.words] = question.number
            business_of[question.business.account_sid, question.phone] = question.business
    for (account, phone), numbers in promised.items():
        sent = effects.texts_to(business_of[account, phone], phone)
        order = [numbers[words] for words in dict.fromkeys(sent) if words in numbers]
        for earlier, later in zip(order, order[1:], strict=False):
            if later < earlier:
                findings.add(DISORDER, phone, f"text {later} was sent after text {earlier}")


def _ids(businesses: Sequence[Business]) -> list[str]:
    return [str(business.id) for business in businesses]
