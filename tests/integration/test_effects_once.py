"""Effects outside happen once: each rule by itself, at the moment at which it matters."""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta

import pytest
import requests
from sqlalchemy import text

from app.errors import ProviderUnavailable
from app.integrations.breaker import circuits
from app.models.appointments import find_appointment
from app.services import turns
from app.services.calendar_push import Pusher
from app.services.delivery import LeaseLost, Work
from app.services.drain import Drain
from tests.integration.test_booking import ADA, appointments, hurry_finishing, tomorrow
from tests.integration.test_texts import forward, plan, rows


def change(platform, business, statement, **values):
    with platform.database.transaction(business.id) as session:
        session.execute(text(statement), values)


def begun_long_ago(platform, business, *, minutes=5):
    change(
        platform,
        business,
        "UPDATE messages SET status = 'sending', sends = 1, sending_since = now() - make_interval(mins => :minutes)",
        minutes=minutes,
    )


def posts(world):
    return world.requests("twilio", "create_message")


@pytest.fixture
def before_sending(monkeypatch):
    """Let something happen between a text's being read and its being sent, once."""

    def do(action):
        take = turns.take_for_text
        done = []

        def first(platform, credentials, message):
            take(platform, credentials, message)
            if not done:
                done.append(1)
                action(message)

        monkeypatch.setattr(turns, "take_for_text", first)

    return do


def test_a_worker_whose_lane_was_taken_meanwhile_sends_nothing(platform, people, world, before_sending):
    before_sending(
        lambda _: change_lanes(platform, "UPDATE lanes SET token = nextval('lane_tokens') WHERE token IS NOT NULL")
    )
    plan(platform, people.salon)
    Drain(platform, threads=1).run(seconds=0.5)
    assert posts(world) == []


def change_lanes(platform, statement):
    with platform.database.transaction(system=True) as session:
        session.execute(text(statement))


def test_a_text_that_another_process_has_begun_to_send_is_not_sent_beside_it(
    platform, people, world, before_sending, settle
):
    def begin(message):
        change(platform, people.salon, "UPDATE messages SET status = 'sending', sending_since = now(), sends = 1")

    before_sending(begin)
    plan(platform, people.salon)
    Drain(platform, threads=1).run(seconds=0.5)
    assert posts(world) == []
    assert rows(platform, people.salon, "status, sends") == [("sending", 1)]


def test_the_first_sid_stands_though_another_is_brought_by_the_send_or_by_a_callback(
    client, platform, people, monkeypatch, settle
):
    first, late = "SM" + secrets.token_hex(16), "SM" + secrets.token_hex(16)
    send = platform.twilio.send

    def settled_meanwhile(credentials, **text_and_time):
        sent = send(credentials, **text_and_time)
        change(platform, people.salon, "UPDATE messages SET provider_sid = :sid, status = 'sent'", sid=first)
        return sent

    monkeypatch.setattr(platform.twilio, "send", settled_meanwhile)
    message_id = plan(platform, people.salon)
    settle(lambda: rows(platform, people.salon) == ["sent"])
    forward(client, people.salon, {"MessageSid": late, "MessageStatus": "delivered"}, f"?m={message_id}")
    Drain(platform, threads=1).run()
    assert rows(platform, people.salon, "provider_sid, status") == [(first, "sent")]


def test_an_unknown_text_that_several_at_twilio_could_be_stays_unknown_and_is_never_sent_again(
    platform, people, world, settle
):
    salon = people.salon
    at_twilio = requests.Session()
    at_twilio.trust_env = False
    for _ in range(2):
        at_twilio.post(
            f"{world.twilio_url}/2010-04-01/Accounts/{salon.account_sid}/Messages.json",
            data={"To": ADA, "From": salon.number, "Body": "Reply C to cancel"},
            auth=(salon.account_sid, salon.auth_token),
            timeout=5,
        ).raise_for_status()
    plan(platform, salon, "Reply C to cancel")
    begun_long_ago(platform, salon)
    settle(lambda: rows(platform, salon) == ["unknown"])
    Drain(platform, threads=1).run()
    assert rows(platform, salon, "status, provider_sid, error_code") == [("unknown", None, "unknown")]
    assert len(world.messages()) == 2
    with platform.database.transaction(system=True) as session:
        found = session.execute(text("SELECT status, error_code FROM webhook_delivery_log")).all()
    assert [tuple(row) for row in found] == [("dead", "unknown")]  # which raises an alert


def test_an_unknown_text_that_nobody_can_be_asked_about_for_ten_minutes_is_not_sent_again(
    platform, people, world, settle
):
    world.fault("twilio", "error_500", operation="list_messages")
    plan(platform, people.salon)
    begun_long_ago(platform, people.salon, minutes=11)
    settle(lambda: rows(platform, people.salon) == ["unknown"])
    world.clear_faults()
    Drain(platform, threads=1).run()
    assert rows(platform, people.salon) == ["unknown"]
    assert world.messages() == []


def test_an_unknown_text_is_looked_up_only_after_its_time_and_as_long_again_before_it_is_sent(
    platform, people, world, settle
):
    world.fault("twilio", "cut_before", operation="create_message", times=1)
    plan(platform, people.salon)
    settle(lambda: rows(platform, people.salon) == ["sent"], seconds=30)
    asked = [(one["operation"], datetime.fromisoformat(one["at"])) for one in world.requests("twilio")]
    assert [operation for operation, _ in asked[:4]] == ["create_message", *["list_messages"] * 2, "create_message"]
    pause = timedelta(seconds=platform.settings.unknown_lookup_seconds)
    assert asked[1][1] - asked[0][1] >= pause / 2  # counted from just before it was asked
    assert asked[2][1] - asked[1][1] >= pause - timedelta(milliseconds=20)


def test_a_text_whose_connection_was_refused_was_certainly_not_sent_and_needs_no_look_up(
    platform, people, world, monkeypatch, settle
):
    send = platform.twilio.send
    tries = []

    def refused_once(*args, **kwargs):
        tries.append(1)
        if len(tries) == 1:
            raise ProviderUnavailable("refused", maybe_done=False)
        return send(*args, **kwargs)

    monkeypatch.setattr(platform.twilio, "send", refused_once)
    plan(platform, people.salon)
    settle(lambda: rows(platform, people.salon) == ["sent"])
    assert world.requests("twilio", "list_messages") == []


# --- bookings ---------------------------------------------------------------------------------


def book(client, business, *, call_id="c", hour=10):
    return business.tool(
        client, "book_appointment", call_id=call_id, start=tomorrow(hour).isoformat(), name="Ada", phone=ADA
    )


def row_of(platform, business):
    with platform.database.transaction(business.id) as session:
        row_id = session.execute(text("SELECT id FROM appointments ORDER BY created_at DESC LIMIT 1")).scalar_one()
        return find_appointment(session, business.id, row_id)


def live(world, business):
    return [event for event in world.events(business.calendar_id) if event["status"] != "cancelled"]


@pytest.mark.parametrize("decision", ["book", "move", "cancel"])
def test_a_finisher_whose_lane_was_taken_changes_nothing_in_the_calendar(
    client, platform, people, world, monkeypatch, decision
):
    salon = people.salon
    if decision != "book":
        book(client, salon)
    world.fault("google", "error_500")
    if decision == "book":
        book(client, salon)
    elif decision == "move":
        new_start = tomorrow(12).isoformat()
        salon.tool(client, "reschedule_appointment", call_id="c", phone=ADA, new_start=new_start)
    else:
        salon.tool(client, "cancel_appointment", call_id="c", phone=ADA)
    world.clear_faults()
    circuits.reset()
    before = world.events(salon.calendar_id)

    def lost(_: Work) -> None:
        raise LeaseLost

    monkeypatch.setattr(Work, "confirm", lost)
    hurry_finishing(platform)
    Drain(platform, threads=1).run(seconds=0.5)
    assert world.events(salon.calendar_id) == before
    assert appointments(platform, salon)[0].calendar_action is not None


def test_a_booking_whose_event_was_inserted_by_another_and_deleted_by_a_person_gets_an_id_of_its_own(
    client, platform, people, world
):
    salon = people.salon
    world.fault("google", "error_500")
    book(client, salon)
    world.clear_faults()
    circuits.reset()
    row = row_of(platform, salon)
    endpoint = platform.directory.integration(salon.id, "google-calendar")
    platform.google.insert_event(
        endpoint.credentials,
        event_id=row.event_id,
        start=row.starts_at,
        end=row.ends_at,
        timezone="Europe/Berlin",
        summary="Ada",
        description="",
        private={},
        timeout_seconds=5,
    )
    world.delete_event(salon.calendar_id, row.event_id)
    change(platform, salon, "UPDATE appointments SET creation_begun = false")  # as one who knows of no earlier try
    business = platform.directory.business(salon.id)
    done = Pusher(platform, business).push(row.id)
    (event,) = live(world, salon)
    assert event["id"] == done.event_id != row.event_id
    assert (done.status, done.google_event_id, done.creations) == ("booked", event["id"], 2)


def test_a_booking_that_google_has_already_is_compared_and_put_where_it_belongs(client, platform, people, world):
    salon = people.salon
    world.fault("google", "error_500")
    book(client, salon)
    world.clear_faults()
    circuits.reset()
    row = row_of(platform, salon)
    platform.google.insert_event(
        platform.directory.integration(salon.id, "google-calendar").credentials,
        event_id=row.event_id,
        start=row.starts_at + timedelta(hours=2),
        end=row.ends_at + timedelta(hours=2),
        timezone="Europe/Berlin",
        summary="Ada",
        description="",
        private={},
        timeout_seconds=5,
    )
    change(platform, salon, "UPDATE appointments SET creation_begun = false")
    done = Pusher(platform, platform.directory.business(salon.id)).push(row.id)
    (event,) = live(world, salon)
    assert datetime.fromisoformat(event["start"]["dateTime"]) == row.starts_at
    assert (done.status, done.google_event_id, done.calendar_action) == ("booked", event["id"], None)


def test_a_tool_call_asked_again_when_its_answer_is_forgotten_finds_its_booking(client, platform, people, world):
    said = people.salon.tool(
        client,
        "book_appointment",
        call_id="c",
        tool_call_id="t1",
        start=tomorrow(10).isoformat(),
        name="Ada",
        phone=ADA,
    )
    with platform.database.transaction(system=True) as session:
        session.execute(text("DELETE FROM tool_answers"))
    again = people.salon.tool(
        client,
        "book_appointment",
        call_id="c",
        tool_call_id="t1",
        start=tomorrow(10).isoformat(),
        name="Ada",
        phone=ADA,
    )
    assert again == said
    assert len(appointments(platform, people.salon)) == 1
    assert len(live(world, people.salon)) == 1


# --- finished afterwards ----------------------------------------------------------------------


def test_a_cancellation_that_the_calendar_could_not_be_told_of_is_texted_at_once_and_done_there_later(
    client, platform, people, world, settle
):
    salon = people.salon
    book(client, salon)
    settle(lambda: rows(platform, salon) == ["sent"])
    world.fault("google", "error_500")
    assert "is cancelled" in salon.tool(client, "cancel_appointment", call_id="c", phone=ADA)
    settle(lambda: rows(platform, salon, "purpose, status")[1:] == [("cancellation", "sent")])
    assert len(live(world, salon)) == 1
    world.clear_faults()
    hurry_finishing(platform)
    settle(lambda: live(world, salon) == [])
    assert len(world.messages()) == 2


def test_a_text_asked_for_while_twilio_is_away_is_sent_when_it_is_back_once(client, platform, people, world, settle):
    world.fault("twilio", "error_500")
    said = people.salon.tool(client, "send_text", call_id="c", phone=ADA, text="Our address is North Street 1")
    assert said == "The text is on its way."
    Drain(platform, threads=2).run(seconds=1)
    assert world.messages() == []
    world.clear_faults()
    settle(lambda: rows(platform, people.salon) == ["sent"], seconds=30)
    assert len(world.messages()) == 1


def test_a_move_that_the_calendar_could_not_be_told_of_is_finished_and_texted(client, platform, people, world, settle):
    salon = people.salon
    book(client, salon)
    settle(lambda: rows(platform, salon) == ["sent"])
    world.fault("google", "error_500")
    said = salon.tool(client, "reschedule_appointment", call_id="c", phone=ADA, new_start=tomorrow(12).isoformat())
    assert "noted" in said
    world.clear_faults()
    hurry_finishing(platform)
    settle(lambda: len(rows(platform, salon)) == 2 and set(rows(platform, salon)) <= {"sent", "delivered"})
    (event,) = live(world, salon)
    assert datetime.fromisoformat(event["start"]["dateTime"]) == tomorrow(12)
    assert len(world.messages()) == 2
