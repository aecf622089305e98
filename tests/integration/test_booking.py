"""From a tool call to the calendar and the text: once, also when Google or Twilio misbehave."""

from __future__ import annotations

import secrets
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import text

ADA = "+4915112345678"
BERLIN = ZoneInfo("Europe/Berlin")


def tomorrow(hour: int, minute: int = 0) -> datetime:
    day = (datetime.now(BERLIN) + timedelta(days=1)).date()
    return datetime(day.year, day.month, day.day, hour, minute, tzinfo=BERLIN)


def appointments(platform, business):
    with platform.database.transaction(business.id) as session:
        return session.execute(
            text(
                "SELECT status, calendar_action, google_event_id, starts_at, failure"
                " FROM appointments ORDER BY created_at"
            )
        ).all()


def texts(platform, business):
    with platform.database.transaction(business.id) as session:
        return session.execute(
            text(
                "SELECT status, purpose, body, remote_address, error_code FROM messages WHERE direction = 'outbound'"
                " ORDER BY created_at"
            )
        ).all()


def hurry_finishing(platform):
    """The finisher waits for the caller's own thread; a test need not."""
    with platform.database.transaction(system=True) as session:
        session.execute(text("UPDATE webhook_delivery_log SET next_attempt_at = now() WHERE status = 'received'"))
        session.execute(text("UPDATE lanes SET due_at = now() WHERE token IS NULL"))


def test_a_booking_is_in_the_calendar_and_confirmed_by_one_text(client, platform, people, world, settle):
    salon = people.salon
    said = salon.tool(
        client, "book_appointment", call_id="call-1", start=tomorrow(15).isoformat(), name="Ada", phone="0151 12345678"
    )
    assert said.startswith("Booked for")
    assert "\n" not in said
    (event,) = world.events(salon.calendar_id)
    assert event["summary"] == "Ada"
    settle(lambda: [row.status for row in texts(platform, salon)] == ["sent"])
    (sent,) = world.messages()
    assert sent["to"] == ADA
    assert "15:00" in sent["body"]
    hurry_finishing(platform)
    settle(lambda: True)
    assert len(world.events(salon.calendar_id)) == 1
    assert len(world.messages()) == 1


def test_times_without_an_offset_are_local_to_the_organization(client, platform, people):
    local = tomorrow(11).replace(tzinfo=None).isoformat()
    people.salon.tool(client, "book_appointment", call_id="c", start=local, name="Ada", phone=ADA)
    assert appointments(platform, people.salon)[0].starts_at == tomorrow(11)


def test_of_two_bookings_for_one_slot_at_once_one_succeeds_and_the_other_is_offered_free_times(
    app, platform, people, world
):
    def book(number: int) -> str:
        return people.salon.tool(
            app.test_client(),
            "book_appointment",
            call_id=f"c{number}",
            start=tomorrow(9).isoformat(),
            name="N",
            phone=ADA,
        )

    with ThreadPoolExecutor(2) as pool:
        said = sorted(pool.map(book, range(2)))
    assert said[0].startswith("Booked for")
    assert "is taken. Free times:" in said[1]
    assert tomorrow(9, 30).isoformat() in said[1]
    assert len(world.events(people.salon.calendar_id)) == 1


def test_another_organization_may_book_the_same_time(client, people):
    for business in (people.salon, people.dental):
        said = business.tool(
            client, "book_appointment", call_id="c", start=tomorrow(10).isoformat(), name="N", phone=ADA
        )
        assert said.startswith("Booked for")


def test_the_same_tool_call_asked_twice_gets_the_same_answer_and_books_once(client, platform, people, world):
    ask = {"call_id": "c", "tool_call_id": "call_same", "start": tomorrow(14).isoformat(), "name": "Ada", "phone": ADA}
    first = people.salon.tool(client, "book_appointment", **ask)
    second = people.salon.tool(client, "book_appointment", **ask)
    assert first == second
    assert len(appointments(platform, people.salon)) == 1
    assert len(world.events(people.salon.calendar_id)) == 1


def test_the_same_tool_call_asked_while_the_first_is_running_waits_for_its_answer(app, platform, people, world):
    world.fault("google", "slow", operation="insert_event", seconds=0.8)
    ask = {"call_id": "c", "tool_call_id": "call_same", "start": tomorrow(14).isoformat(), "name": "Ada", "phone": ADA}
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda _: people.salon.tool(app.test_client(), "book_appointment", **ask), range(3)))
    assert len(set(answers)) == 1
    assert answers[0].startswith("Booked for")
    assert len(world.events(people.salon.calendar_id)) == 1


def test_what_people_entered_in_google_is_not_offered_and_not_booked_over(client, platform, people, world):
    world.insert_foreign_event(people.salon.calendar_id, tomorrow(9), tomorrow(12))
    free = people.salon.tool(
        client, "check_availability", call_id="c", start=tomorrow(9).isoformat(), end=tomorrow(13).isoformat()
    )
    assert tomorrow(12).isoformat() in free
    assert tomorrow(11, 30).isoformat() not in free
    said = people.salon.tool(
        client, "book_appointment", call_id="c", start=tomorrow(10).isoformat(), name="Ada", phone=ADA
    )
    assert "is taken" in said
    assert appointments(platform, people.salon)[0].status == "failed"


def test_with_the_calendar_down_the_caller_hears_a_sentence_and_the_booking_is_finished_and_texted_once(
    client, platform, people, world, settle
):
    world.fault("google", "error_500")
    began = datetime.now(UTC)
    said = people.salon.tool(
        client, "book_appointment", call_id="c", start=tomorrow(16).isoformat(), name="Ada", phone=ADA
    )
    assert datetime.now(UTC) - began < timedelta(seconds=5)
    assert "I can't reach the calendar just now. I've noted" in said
    assert [row.status for row in appointments(platform, people.salon)] == ["pending"]
    world.clear_faults()
    hurry_finishing(platform)
    settle(lambda: [row.status for row in texts(platform, people.salon)] == ["sent"])
    assert [row.status for row in appointments(platform, people.salon)] == ["booked"]
    assert len(world.events(people.salon.calendar_id)) == 1
    assert len(world.messages()) == 1


@pytest.mark.parametrize("fault", ["hang", "cut_after", "error_500_after", "cut_before"])
def test_whatever_google_does_to_the_insert_there_is_one_event_and_one_text(
    client, platform, people, world, settle, fault
):
    world.fault("google", fault, operation="insert_event", times=1)
    said = people.salon.tool(
        client, "book_appointment", call_id="c", start=tomorrow(16).isoformat(), name="Ada", phone=ADA
    )
    assert "noted" in said or said.startswith("Booked")
    world.clear_faults()
    hurry_finishing(platform)
    settle(lambda: [row.status for row in appointments(platform, people.salon)] == ["booked"])
    settle(lambda: [row.status for row in texts(platform, people.salon)] == ["sent"])
    assert len(world.events(people.salon.calendar_id)) == 1
    assert len(world.messages()) == 1


def test_when_the_noted_slot_has_gone_meanwhile_the_alternatives_are_texted(client, platform, people, world, settle):
    world.fault("google", "error_500")
    people.salon.tool(client, "book_appointment", call_id="c", start=tomorrow(16).isoformat(), name="Ada", phone=ADA)
    world.clear_faults()
    world.insert_foreign_event(people.salon.calendar_id, tomorrow(16), tomorrow(17))
    hurry_finishing(platform)
    settle(lambda: [row.purpose for row in texts(platform, people.salon)] == ["slot_gone"])
    assert appointments(platform, people.salon)[0].failure == "slot_taken"
    assert "17:00" in texts(platform, people.salon)[0].body


def test_an_appointment_is_moved_and_the_move_is_texted(client, platform, people, world, settle):
    people.salon.tool(client, "book_appointment", call_id="c", start=tomorrow(9).isoformat(), name="Ada", phone=ADA)
    said = people.salon.tool(
        client, "reschedule_appointment", call_id="c", phone=ADA, new_start=tomorrow(9, 15).isoformat()
    )
    assert said.startswith("Moved to")
    (event,) = world.events(people.salon.calendar_id)
    assert datetime.fromisoformat(event["start"]["dateTime"]) == tomorrow(9, 15)
    settle(lambda: len(texts(platform, people.salon)) == 2)


def test_a_pending_booking_can_be_cancelled_before_the_calendar_knows_it(client, platform, people, world, settle):
    world.fault("google", "error_500")
    people.salon.tool(client, "book_appointment", call_id="c", start=tomorrow(9).isoformat(), name="Ada", phone=ADA)
    said = people.salon.tool(client, "cancel_appointment", call_id="c", phone=ADA)
    assert "is cancelled" in said
    world.clear_faults()
    hurry_finishing(platform)
    settle(
        lambda: (
            [(row.status, row.calendar_action) for row in appointments(platform, people.salon)] == [("cancelled", None)]
        )
    )
    assert [event for event in world.events(people.salon.calendar_id) if event["status"] != "cancelled"] == []


def test_cancelling_by_text_with_c_frees_the_slot_and_is_answered(client, platform, people, world, settle):
    people.salon.tool(client, "book_appointment", call_id="c", start=tomorrow(9).isoformat(), name="Ada", phone=ADA)
    settle(lambda: len(world.messages()) == 1)
    assert people.salon.text(client, ADA, " c ").status_code == 200
    settle(lambda: [row.purpose for row in texts(platform, people.salon)] == ["confirmation", "cancellation"])
    hurry_finishing(platform)
    settle(lambda: appointments(platform, people.salon)[0].calendar_action is None)
    assert [event for event in world.events(people.salon.calendar_id) if event["status"] != "cancelled"] == []
    said = people.salon.tool(
        client, "book_appointment", call_id="d", start=tomorrow(9).isoformat(), name="Bo", phone="+4915112340000"
    )
    assert said.startswith("Booked")


def test_cancelling_by_text_without_an_appointment_is_answered_too(client, platform, people, world, settle):
    people.salon.text(client, "whatsapp:" + ADA, "CANCEL")
    settle(lambda: [row.purpose for row in texts(platform, people.salon)] == ["reply"])
    settle(lambda: [message["to"] for message in world.messages()] == ["whatsapp:" + ADA])
    assert appointments(platform, people.salon) == []


def test_a_closed_or_past_time_gets_a_sentence_with_free_times(client, people):
    yesterday = (datetime.now(BERLIN) - timedelta(days=1)).isoformat()
    said = people.salon.tool(client, "book_appointment", call_id="c", start=yesterday, name="Ada", phone=ADA)
    assert "in the past" in said


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("make_coffee", {}, "I can't do that here"),
        ("book_appointment", {}, "I need this to be given properly: name, phone, start"),
        ("book_appointment", {"start": "soon", "name": "A", "phone": ADA}, "a time is needed"),
        ("book_appointment", {"start": "2099-01-01T10:00", "name": "A", "phone": "12"}, "phone number is not complete"),
        ("cancel_appointment", {"phone": ADA}, "can't find an upcoming appointment"),
    ],
)
def test_what_makes_no_sense_gets_a_sentence_and_never_an_error(client, people, name, arguments, says):
    said = people.salon.tool(client, name, call_id=secrets.token_hex(4), **arguments)
    assert says in said


def test_several_calls_in_one_message_are_answered_in_order(client, people):
    calls = [
        {"id": f"call_{n}", "type": "function", "function": {"name": name, "arguments": {}}}
        for n, name in enumerate(("make_coffee", "book_appointment"))
    ]
    answer = people.salon.vapi(client, {"type": "tool-calls", "call": {"id": "c"}, "toolCallList": calls})
    assert [result["toolCallId"] for result in answer.get_json()["results"]] == ["call_0", "call_1"]


def test_a_hanging_calendar_leaves_the_caller_waiting_no_longer_than_the_deadline(client, people, world):
    world.fault("google", "hang")
    began = datetime.now(UTC)
    said = people.salon.tool(client, "check_availability", call_id="c", start=tomorrow(9).isoformat())
    assert datetime.now(UTC) - began < timedelta(seconds=5)
    assert said.startswith("I can't reach the calendar")
