"""What time, loss and other people do to a booking: the row, the calendar and what is said must still agree."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import text

from app.services import connections
from tests.integration.test_booking import ADA, appointments, hurry_finishing, texts, tomorrow


def live_events(world, business):
    return [event for event in world.events(business.calendar_id) if event["status"] != "cancelled"]


def book(client, business, start, *, call_id="c", phone=ADA):
    return business.tool(client, "book_appointment", call_id=call_id, start=start.isoformat(), name="Ada", phone=phone)


def refuse_for_good(platform, business):
    """The business deletes its calendar at Google."""
    integration = platform.directory.integration(business.id, "google-calendar")
    connections.change(platform, integration.integration_id, {"calendar_id": "deleted@example.test"}, actor="a test")


def withdraw_consent(platform, business, world):
    """The business withdraws its consent at Google."""
    credentials = platform.directory.integration(business.id, "google-calendar").credentials
    world.revoke(refresh_token=credentials.refresh_token.get_secret_value())
    world.expire_tokens()


def waits_for_credentials(platform, business):
    statement = text("SELECT count(*) FROM webhook_delivery_log WHERE waiting_on = 'credentials:' || org_id")
    with platform.database.transaction(business.id) as session:
        return session.execute(statement).scalar() == 1


def test_a_move_that_google_did_without_saying_so_is_not_taken_back(client, platform, people, world, settle):
    book(client, people.salon, tomorrow(9))
    world.fault("google", "cut_after", operation="patch_event", times=1)
    people.salon.tool(client, "reschedule_appointment", call_id="c", phone=ADA, new_start=tomorrow(13).isoformat())
    world.clear_faults()
    hurry_finishing(platform)
    settle(lambda: appointments(platform, people.salon)[0].calendar_action is None)
    assert appointments(platform, people.salon)[0].starts_at == tomorrow(13)
    (event,) = live_events(world, people.salon)
    assert datetime.fromisoformat(event["start"]["dateTime"]) == tomorrow(13)
    assert [row.purpose for row in texts(platform, people.salon)] == ["confirmation", "confirmation"]


def test_a_move_into_taken_time_goes_back_and_both_the_row_and_the_calendar_keep_the_old(
    client, platform, people, world
):
    book(client, people.salon, tomorrow(9))
    world.insert_foreign_event(people.salon.calendar_id, tomorrow(13), tomorrow(14))
    said = people.salon.tool(
        client, "reschedule_appointment", call_id="c", phone=ADA, new_start=tomorrow(13).isoformat()
    )
    assert "is taken" in said
    (row,) = appointments(platform, people.salon)
    assert (row.status, row.starts_at, row.calendar_action) == ("booked", tomorrow(9), None)


def test_a_move_that_fails_after_its_old_time_was_given_away_keeps_the_old_time_and_raises_a_conflict(
    client, platform, people, world, settle
):
    book(client, people.salon, tomorrow(9))
    world.fault("google", "error_500")
    people.salon.tool(client, "reschedule_appointment", call_id="c", phone=ADA, new_start=tomorrow(13).isoformat())
    world.insert_foreign_event(people.salon.calendar_id, tomorrow(13), tomorrow(14))
    with platform.database.transaction(people.salon.id) as session:
        session.execute(
            text(
                "INSERT INTO appointments (id, org_id, calendar_id, starts_at, ends_at, status, name)"
                " SELECT gen_random_uuid(), org_id, calendar_id, previous_starts_at, previous_ends_at, 'booked', 'Bo'"
                " FROM appointments"
            )
        )
    world.clear_faults()
    hurry_finishing(platform)
    settle(lambda: [row.purpose for row in texts(platform, people.salon)] == ["confirmation", "move_failed"])
    with platform.database.transaction(people.salon.id) as session:
        statement = text("SELECT starts_at, external_conflict, calendar_action FROM appointments WHERE name = 'Ada'")
        assert tuple(session.execute(statement).one()) == (tomorrow(9), True, None)


def test_a_cancelled_booking_leaves_no_event_though_its_insert_arrives_afterwards(
    client, platform, people, world, settle
):
    world.fault("google", "slow", operation="insert_event", seconds=6)
    assert "noted" in book(client, people.salon, tomorrow(9))
    assert "is cancelled" in people.salon.tool(client, "cancel_appointment", call_id="c", phone=ADA)
    settle(lambda: len(world.events(people.salon.calendar_id)) == 1)
    world.clear_faults()
    hurry_finishing(platform)
    settle(lambda: appointments(platform, people.salon)[0].calendar_action is None)
    assert live_events(world, people.salon) == []


def test_a_booking_that_google_refuses_for_good_gives_its_slot_back_and_nothing_is_promised(
    client, platform, people, world
):
    refuse_for_good(platform, people.salon)
    said = book(client, people.salon, tomorrow(9))
    assert "can't be done" in said
    assert [(row.status, row.calendar_action) for row in appointments(platform, people.salon)] == [("failed", None)]
    assert texts(platform, people.salon) == []


def test_a_noted_booking_that_google_refuses_for_good_is_given_up_and_the_customer_told(
    client, platform, people, world, settle
):
    world.fault("google", "error_500")
    assert "noted" in book(client, people.salon, tomorrow(9))
    world.clear_faults()
    refuse_for_good(platform, people.salon)
    hurry_finishing(platform)
    settle(lambda: [row.purpose for row in texts(platform, people.salon)] == ["not_booked"])
    assert [row.status for row in appointments(platform, people.salon)] == ["failed"]


def test_a_booking_waits_for_an_operator_who_connects_the_calendar_again(client, platform, people, world, settle):
    integration = platform.directory.integration(people.salon.id, "google-calendar")
    withdraw_consent(platform, people.salon, world)
    assert "noted" in book(client, people.salon, tomorrow(9))
    settle(lambda: waits_for_credentials(platform, people.salon))
    assert live_events(world, people.salon) == []
    assert texts(platform, people.salon) == []
    known = integration.credentials
    world.google_client(known.client_id, known.client_secret.get_secret_value(), "renewed")
    connections.change(platform, integration.integration_id, {"refresh_token": "renewed"}, actor="a test")
    with platform.database.transaction(system=True) as session:
        waiting = text("SELECT count(*) FROM webhook_delivery_log WHERE waiting_on IS NOT NULL")
        assert session.execute(waiting).scalar() == 0
    hurry_finishing(platform)
    settle(lambda: [row.purpose for row in texts(platform, people.salon)] == ["confirmation"])
    assert len(live_events(world, people.salon)) == 1


def test_a_noted_booking_whose_time_has_passed_is_not_booked_afterwards(client, platform, people, world, settle):
    world.fault("google", "error_500")
    assert "noted" in book(client, people.salon, tomorrow(9))
    with platform.database.transaction(people.salon.id) as session:
        session.execute(
            text("UPDATE appointments SET starts_at = now() - interval '1 h', ends_at = now() - interval '30 min'")
        )
    world.clear_faults()
    hurry_finishing(platform)
    settle(lambda: [row.purpose for row in texts(platform, people.salon)] == ["slot_gone"])
    assert live_events(world, people.salon) == []


def test_an_event_deleted_in_google_and_moved_into_taken_time_does_not_hold_its_slot_for_ever(
    client, platform, people, world
):
    book(client, people.salon, tomorrow(9))
    with platform.database.transaction(people.salon.id) as session:
        session.execute(
            text("UPDATE appointments SET creations = 7, creation_begun = false, calendar_action = 'create'")
        )
    said = people.salon.tool(
        client, "reschedule_appointment", call_id="c", phone=ADA, new_start=tomorrow(9, 15).isoformat()
    )
    assert "is taken" in said
    assert [(row.status, row.calendar_action) for row in appointments(platform, people.salon)] == [("failed", None)]


def test_free_times_offered_instead_of_a_past_one_are_free_in_the_calendar_too(client, people, world):
    soon = datetime.now(UTC)
    world.insert_foreign_event(people.salon.calendar_id, soon - timedelta(hours=1), soon + timedelta(days=2))
    said = book(client, people.salon, soon - timedelta(days=30))
    assert "in the past" in said
    offered = [datetime.fromisoformat(part.split(")")[0]) for part in said.split("(")[1:]]
    assert offered
    assert min(offered) >= soon + timedelta(days=2)


def test_a_number_that_has_opted_out_is_not_promised_a_confirmation(client, platform, people, world):
    people.salon.text(client, ADA, "STOP")
    said = book(client, people.salon, tomorrow(9))
    assert said.startswith("Booked for")
    assert "is being texted" not in said
    world.fault("google", "error_500")
    said = book(client, people.salon, tomorrow(10))
    assert "I've noted" in said
    assert "will text" not in said
