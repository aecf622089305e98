"""The fault suite's judge sees what it is there to see, and its table adds up."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from chaos import judge as rules
from chaos import table
from chaos.books import Books, Event, Question
from chaos.effects import Effects
from chaos.faults import FAULTS
from chaos.judge import DISORDER, DOUBLED, HALF, LATE, LOST, judge
from chaos.people import Business, Numbers, Regular
from chaos.sabotage import SABOTAGES
from chaos.table import Row
from chaos.traffic import Traffic

PHONE = "+4915100000001"
SLOT = datetime(2026, 3, 2, 10, tzinfo=UTC)
SALON = Business(
    id=UUID(int=1),
    name="Salon",
    number="+493000000001",
    assistant_id="asst",
    vapi_path="/webhooks/vapi/t",
    vapi_secret="s",
    twilio_path="/webhooks/twilio/t",
    account_sid="AC1",
    auth_token="token",
    calendar_id="cal",
    regulars=[Regular(PHONE)],
)


class Tables:
    """Rows as the product's database would give them, by the judge's own statements."""

    def __init__(self, **rows: list[tuple[Any, ...]]) -> None:
        self._rows = {getattr(rules, name): found for name, found in rows.items()}

    def query(self, statement: str, values: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
        return self._rows.get(statement, [])


def event(key: str = "in:SM1", *, acknowledged: bool = True, **more: Any) -> Event:
    at = 1.0 if acknowledged else None
    return Event(SALON, key, "lane", posts=1, acks=int(acknowledged), acknowledged_at=at, **more)


def asked(said: str, *, tool: str = "send_text", words: str = "Note 000001", **more: Any) -> Question:
    return Question(SALON, "call-1", str(uuid4()), tool, phone=PHONE, words=words, said=said, status=200, **more)


def stored(*statuses: str, key: str = "in:SM1", code: str = "") -> list[tuple[str, ...]]:
    return [(str(SALON.id), key, status, code) for status in statuses]


def effects(*bodies: str, events: int = 0) -> Effects:
    return Effects({("AC1", PHONE): list(bodies)} if bodies else {}, {("cal", SLOT): events} if events else {})


def kinds(tables: Tables, books: Books, seen: Effects | None = None) -> list[str]:
    return [violation.kind for violation in judge(tables, [SALON], books, seen or effects()).violations]


def test_what_was_acknowledged_stored_once_and_processed_is_as_it_should_be():
    assert kinds(Tables(_DELIVERIES=stored("processed")), Books([event()])) == []


@pytest.mark.parametrize("rows", [[], stored("received"), stored("dead", code="crashed")])
def test_what_was_acknowledged_and_is_not_there_not_finished_or_dead_is_lost(rows):
    assert kinds(Tables(_DELIVERIES=rows), Books([event()])) == [LOST]


def test_what_was_never_acknowledged_may_be_missing_and_may_not_be_there_twice():
    assert kinds(Tables(), Books([event(acknowledged=False)])) == []
    twice = Tables(_DELIVERIES=stored("processed", "processed"))
    assert kinds(twice, Books([event(acknowledged=False)])) == [DOUBLED]


def test_poison_must_be_dead():
    assert kinds(Tables(_DELIVERIES=stored("dead", code="crashed")), Books([event(buried=True)])) == []
    assert kinds(Tables(_DELIVERIES=stored("processed")), Books([event(buried=True)])) == [LOST]


@pytest.mark.parametrize(("bodies", "found"), [((), [LOST]), (("a",), []), (("a", "a"), [DOUBLED])])
def test_a_text_that_wants_an_answer_gets_exactly_one(bodies, found):
    assert kinds(Tables(_DELIVERIES=stored("processed")), Books([event(reply_to=PHONE)]), effects(*bodies)) == found


def test_a_report_that_was_acknowledged_makes_the_calls_record_complete():
    books = Books([event("end-of-call-report:c1")])
    rows = stored("processed", key="end-of-call-report:c1")
    assert kinds(Tables(_DELIVERIES=rows), books) == [LOST]
    assert kinds(Tables(_DELIVERIES=rows, _CALLS=[("c1",)]), books) == []


def test_a_promise_to_a_caller_is_kept_once_and_what_was_not_promised_happens_once_at_most():
    promised, sorry = asked("The text is on its way."), asked("I couldn't do that just now.")
    assert kinds(Tables(), Books(questions=[promised])) == [LOST]
    assert kinds(Tables(), Books(questions=[promised]), effects("Note 000001")) == []
    assert kinds(Tables(), Books(questions=[promised]), effects("Note 000001", "Note 000001")) == [DOUBLED]
    assert kinds(Tables(), Books(questions=[sorry])) == []
    assert kinds(Tables(), Books(questions=[sorry]), effects("Note 000001", "Note 000001")) == [DOUBLED]


def test_a_booking_is_here_and_in_the_calendar_or_in_neither():
    question = asked("", tool="book_appointment", words="Guest", slot=SLOT, cut=True)
    books = Books(questions=[question])
    assert kinds(Tables(), books) == []
    assert kinds(Tables(_BOOKED=[("Guest",)]), books, effects("confirmed", events=1)) == []
    assert kinds(Tables(_BOOKED=[("Guest",)]), books) == [HALF]
    assert kinds(Tables(), books, effects("confirmed", events=1)) == [HALF]
    assert kinds(Tables(_BOOKED=[("Guest",)]), books, effects("confirmed", events=2)) == [DOUBLED]


def test_an_answer_that_is_late_or_says_nothing_is_seen_unless_the_connection_was_cut():
    assert kinds(Tables(), Books(questions=[asked("I couldn't.", seconds=5.6)])) == [LATE]
    assert kinds(Tables(), Books(questions=[asked("")])) == [LATE]
    assert kinds(Tables(), Books(questions=[asked("", seconds=20.0, cut=True)])) == []


def test_texts_to_one_customer_arrive_in_the_order_in_which_they_were_promised():
    said = "The text is on its way."
    books = Books(questions=[asked(said, words=f"Note {number}", number=number) for number in (1, 2)])
    assert kinds(Tables(), books, effects("Note 1", "Note 2")) == []
    assert kinds(Tables(), books, effects("Note 2", "Note 1")) == [DISORDER]


def test_a_fault_that_was_not_run_makes_no_zero_and_a_later_run_of_it_stands(tmp_path: Path):
    broken, clean = Row("a", "", events=5, lost=1, recovered_seconds=1.0), Row("a", "", events=7, recovered_seconds=2.0)
    table.save(tmp_path / "1.json", {}, [broken, Row("b", "", not_run="needs root")])
    table.save(tmp_path / "2.json", {}, [clean])
    _, rows = table.load([tmp_path / "1.json", tmp_path / "2.json"])
    assert [row.is_clean for row in (broken, *rows)] == [False, True, True]
    lines = table.render(rows).splitlines()
    assert "NOT RUN: needs root" in lines[3]
    assert "7" in lines[-1]
    assert " 0 " not in lines[3]


def test_a_fault_that_never_recovers_is_not_clean():
    assert not Row("a", "", events=5).is_clean


def test_the_same_seed_makes_the_same_load():
    def keys(seed: int) -> list[str]:
        traffic = Traffic([], "http://here", [SALON], Numbers(0), random.Random(seed), rate=1)
        traffic.send = lambda event, *_: traffic.books.events.append(event)
        for _ in range(20):
            traffic._play(traffic._text, random.Random(traffic.rng.random()))
        traffic._ended.set()
        return [event.key for event in traffic.books.events]

    assert keys(1) == keys(1) != keys(2)


def test_every_sabotage_runs_under_a_fault_that_there_is_and_every_fault_has_a_name_of_its_own():
    names = [fault.name for fault in FAULTS]
    assert len(set(names)) == len(names)
    assert {sabotage.fault for sabotage in SABOTAGES.values()} <= set(names)


def test_a_full_run_is_large_enough():
    totals: dict[str, int] = {}
    for fault in FAULTS:
        totals[fault.group] = totals.get(fault.group, 0) + fault.events
    assert all(totals[group] >= 10_000 for group in ("processes", "redis", "postgres", "providers"))
    assert sum(totals.values()) >= 100_000


def test_times_that_are_given_to_bookings_do_not_overlap():
    given = [SALON.next_slot() for _ in range(200)]
    assert all(later - earlier >= timedelta(minutes=15) for earlier, later in zip(given, given[1:], strict=False))
