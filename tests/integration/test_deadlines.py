"""Somebody is waiting: however much is asked at once and whatever is slow, the answer comes in time and is true."""

from __future__ import annotations

import time
from threading import Event, Thread

from sqlalchemy import text

from app.integrations.deadline import Deadline
from app.services.answers import SENTENCE_RESERVE_SECONDS
from tests.integration.test_booking import ADA, appointments, tomorrow
from tests.integration.test_booking_races import book


def call(number: int, name: str, /, **arguments):
    return {"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": arguments}}


def ask(client, business, *calls):
    began = time.monotonic()
    answer = business.vapi(client, {"type": "tool-calls", "call": {"id": "c"}, "toolCallList": list(calls)})
    return [result["result"] for result in answer.get_json()["results"]], time.monotonic() - began


def lock_appointments(platform, business, seconds: float) -> Thread:
    """Somebody holds the table for a while: every booking waits."""
    locked = Event()

    def hold():
        with platform.database.transaction(business.id) as session:
            session.execute(text("SELECT * FROM appointments FOR UPDATE"))
            locked.set()
            time.sleep(seconds)

    thread = Thread(target=hold)
    thread.start()
    assert locked.wait(5)
    return thread


def test_many_calls_in_one_message_share_one_deadline_and_what_was_not_begun_is_not_done(
    client, platform, people, world
):
    world.fault("google", "hang")
    calls = [call(n, "book_appointment", start=tomorrow(8 + n).isoformat(), name="Ada", phone=ADA) for n in range(12)]
    said, seconds = ask(client, people.salon, *calls)
    assert seconds < platform.settings.tool_deadline_seconds + 0.3
    assert "I've noted" in said[0]
    assert "nothing was done" in said[-1]
    noted = sum("I've noted" in sentence for sentence in said)
    assert len(appointments(platform, people.salon)) == noted


def test_a_providers_last_try_leaves_time_to_write_down_what_came_of_it_before_the_caller_is_told_otherwise():
    deadline = Deadline.within(5)
    assert deadline.remaining() - deadline.try_timeout(cap_seconds=60) > SENTENCE_RESERVE_SECONDS + 0.15


def test_a_cancellation_is_told_as_done_though_the_calendar_hangs(client, platform, people, world):
    book(client, people.salon, tomorrow(9))
    world.fault("google", "hang")
    (said,), seconds = ask(client, people.salon, call(1, "cancel_appointment", phone=ADA))
    assert "is cancelled" in said
    assert seconds < platform.settings.tool_deadline_seconds
    assert [row.status for row in appointments(platform, people.salon)] == ["cancelled"]


def test_what_may_still_be_committed_is_neither_promised_nor_denied(client, platform, people):
    book(client, people.salon, tomorrow(9))
    thread = lock_appointments(platform, people.salon, platform.settings.tool_deadline_seconds + 1)
    (said,), seconds = ask(
        client, people.salon, call(1, "reschedule_appointment", phone=ADA, new_start=tomorrow(12).isoformat())
    )
    assert seconds < platform.settings.tool_deadline_seconds + 0.3
    assert "can't tell yet" in said
    thread.join()
