"""What people do in Google reaches the house: over HTTP, with notifications, and once each."""

from __future__ import annotations

from datetime import datetime, time, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from app.models.operations import hold_singleton
from app.services import calendar_sync
from app.services.alert_causes import SHARED
from tests.calendars import GRACE, HALF_HOUR, Desk
from tests.integration.test_booking import ADA, BERLIN, hurry_finishing, tomorrow


@pytest.fixture
def desk(platform, world, people, client, settle, served, monkeypatch) -> Desk:
    """North Street Salon's, notified over HTTP, and not kept waiting between two syncs."""
    monkeypatch.setattr(calendar_sync, "GAP", timedelta(seconds=0.1))
    world.pushes(via=served)
    desk = Desk(platform, world, people.salon, client, settle)
    desk.open()
    return desk


def test_an_appointment_that_a_person_moves_follows_and_its_customer_gets_one_text(desk):
    desk.drag(desk.book(9), 15)
    desk.settle(lambda: len(desk.texts()) == 2 and desk.at_rest())
    assert desk.row().starts_at == tomorrow(15)
    assert desk.row().ends_at == tomorrow(15) + HALF_HOUR
    assert "is moved to" in desk.texts()[1]
    assert "15:00" in desk.texts()[1]
    desk.sync()
    assert len(desk.texts()) == 2
    assert desk.business.tool(
        desk.client, "book_appointment", call_id="c", start=tomorrow(9).isoformat(), name="Grace", phone=GRACE
    ).startswith("Booked for")


def test_an_appointment_that_a_person_deletes_is_cancelled_and_its_customer_gets_one_text(desk):
    desk.delete(desk.book(9))
    desk.settle(lambda: len(desk.texts()) == 2 and desk.at_rest())
    assert (desk.row().status, desk.row().calendar_action) == ("cancelled", None)
    assert "is cancelled" in desk.texts()[1]
    desk.sync()
    assert len(desk.texts()) == 2


def test_what_we_wrote_ourselves_comes_back_and_changes_nothing(desk):
    desk.book(9)
    hurry_finishing(desk.platform)
    desk.sync()
    row = desk.row()
    assert (row.status, row.version, row.starts_at) == ("booked", 1, tomorrow(9))
    assert len(desk.texts()) == 1
    assert desk.busy() == []


def test_an_event_entered_on_top_of_a_booking_is_a_conflict_until_it_moves_away(desk):
    desk.book(9)
    foreign = desk.enter(8, 10)
    desk.settle(lambda: desk.row().conflict_since and desk.at_rest())
    assert (desk.row().status, desk.row().external_conflict) == ("booked", False)
    assert desk.busy() == [(tomorrow(8), tomorrow(10))]
    assert conflicts(desk) == [str(desk.row().id)]
    desk.world.move_event(desk.business.calendar_id, foreign["id"], tomorrow(12), tomorrow(13))
    desk.settle(lambda: desk.row().conflict_since is None and desk.at_rest())
    assert conflicts(desk) == []
    assert len(desk.texts()) == 1


def test_a_booking_dragged_onto_another_is_a_conflict_and_told_to_nobody_until_it_is_settled(desk):
    desk.book(9)
    second = desk.book(11, "Grace", GRACE)
    desk.drag(second, 9)
    desk.settle(lambda: desk.row("Grace").external_conflict and desk.at_rest())
    assert conflicts(desk) == [str(desk.row("Grace").id)]
    assert (desk.row("Grace").status, desk.row("Grace").starts_at) == ("booked", tomorrow(9))
    assert len(desk.texts(GRACE)) == 1
    desk.business.tool(desk.client, "cancel_appointment", call_id="c", phone=ADA)
    desk.settle(lambda: not desk.row("Grace").external_conflict and desk.at_rest())
    desk.settle(lambda: len(desk.texts(GRACE)) == 2)
    assert "is moved to" in desk.texts(GRACE)[1]


def test_fifty_notifications_in_a_second_are_at_most_two_syncs(desk, monkeypatch):
    monkeypatch.undo()
    desk.enter(8, 10)
    desk.settle(lambda: desk.busy() and desk.at_rest())
    before = len(desk.syncs())
    desk.world.notify(desk.business.calendar_id, times=50)
    desk.settle(lambda: len(desk.world.notifications()) >= 52 and desk.at_rest(), seconds=40)
    assert 1 <= len(desk.syncs()) - before <= 2
    assert {made["answer"] for made in desk.world.notifications()} == {204}


def test_a_forgotten_token_costs_one_full_sync_whose_result_replaces_the_mirror(desk):
    gone = desk.enter(8, 9)
    desk.settle(lambda: desk.busy() and desk.at_rest())
    deleted = desk.book(11)
    moved = desk.book(14, "Grace", GRACE)
    quiet(desk)
    desk.delete(gone)
    desk.delete(deleted)
    desk.drag(moved, 15)
    desk.enter(17, 18)
    desk.world.expire_sync_tokens(desk.business.calendar_id)
    before = len(desk.syncs())
    desk.sync()
    asked = desk.syncs()[before:]
    assert [one["status"] for one in asked] == [410, 200]
    assert ["syncToken" in one["query"] for one in asked] == [True, False]
    assert desk.busy() == [(tomorrow(17), tomorrow(18))]
    assert desk.row().status == "cancelled"
    assert desk.row("Grace").starts_at == tomorrow(15)
    assert [len(desk.texts()), len(desk.texts(GRACE))] == [2, 2]
    desk.sync()
    assert "syncToken" in desk.syncs()[-1]["query"]
    assert len(desk.syncs()) == before + 3


def test_a_sync_that_ends_in_the_middle_is_repeated_and_tells_nobody_twice(desk):
    moved, deleted = desk.book(9), desk.book(11, "Grace", GRACE)
    quiet(desk)
    desk.drag(moved, 15)
    desk.delete(deleted)
    desk.world.fault("google", "error_500", operation="get_event")
    token = desk.one("SELECT sync_token FROM calendar_syncs")
    calendar_sync.request_now(desk.platform, desk.business.id)
    desk.settle(lambda: desk.one("SELECT count(*) FROM delivery_attempts WHERE outcome = 'retry'") >= 1)
    assert desk.row().starts_at == tomorrow(15)
    assert desk.one("SELECT sync_token FROM calendar_syncs") == token
    desk.world.clear_faults()
    desk.settle(lambda: desk.row("Grace").status == "cancelled" and desk.at_rest())
    assert [len(desk.texts()), len(desk.texts(GRACE))] == [2, 2]
    assert desk.row().version == 2


def test_a_calendar_of_many_pages_is_read_to_its_end(desk, monkeypatch):
    monkeypatch.setattr("app.integrations.google_calendar.changes.PAGE_SIZE", 2)
    quiet(desk)
    for hour in range(8, 15):
        desk.enter(hour, hour + 1)
    desk.sync()
    assert len(desk.busy()) == 7
    assert len([one for one in desk.world.requests("google", "list_events") if "pageToken" in one["query"]]) >= 3


def test_only_what_keeps_somebody_busy_is_mirrored_and_whole_days_are_local(desk):
    desk.world.calendar(desk.business.calendar_id, timezone="Europe/Berlin")
    day = tomorrow(0).date()
    quiet(desk)
    desk.world.insert_foreign_event(desk.business.calendar_id, day, day + timedelta(days=2))
    desk.enter(8, 9, transparency="transparent")
    desk.enter(9, 10, attendees=[{"email": "me@example.com", "self": True, "responseStatus": "declined"}])
    desk.enter(10, 11, attendees=[{"email": "me@example.com", "self": True, "responseStatus": "accepted"}])
    desk.sync()
    midnight = datetime.combine(day, time(), BERLIN)
    two_days_later = datetime.combine(day + timedelta(days=2), time(), BERLIN)
    assert desk.busy() == [(midnight, two_days_later), (tomorrow(10), tomorrow(11))]


def test_a_copy_of_our_event_is_somebody_elses_and_moves_no_appointment(desk):
    original = desk.book(9)
    quiet(desk)
    desk.enter(16, 17, extendedProperties=original["extendedProperties"])
    desk.sync()
    assert desk.row().starts_at == tomorrow(9)
    assert desk.busy() == [(tomorrow(16), tomorrow(17))]
    assert len(desk.texts()) == 1


def test_what_a_customer_has_just_decided_wins_over_a_drag(desk):
    event = desk.book(9)
    quiet(desk)
    desk.world.fault("google", "error_500", operation="patch_event")
    said = desk.business.tool(
        desk.client, "reschedule_appointment", call_id="c", phone=ADA, new_start=tomorrow(13).isoformat()
    )
    assert "I've noted" in said
    desk.drag(event, 16)
    desk.sync()
    assert (desk.row().starts_at, desk.row().calendar_action) == (tomorrow(13), "move")
    desk.world.clear_faults()
    hurry_finishing(desk.platform)
    desk.settle(lambda: desk.row().calendar_action is None and len(desk.texts()) == 2)
    (now_there,) = desk.events()
    assert datetime.fromisoformat(now_there["start"]["dateTime"]) == tomorrow(13)
    assert "13:00" in desk.texts()[1]


def test_an_appointment_made_a_whole_day_keeps_its_time_and_is_busy_there(desk):
    event = desk.book(9)
    quiet(desk)
    day = tomorrow(0).date()
    desk.world.move_event(desk.business.calendar_id, event["id"], day, day + timedelta(days=1))
    desk.sync()
    assert (desk.row().starts_at, desk.row().status) == (tomorrow(9), "booked")
    assert len(desk.texts()) == 1
    assert desk.row().conflict_since is not None
    desk.drag(event, 14)
    desk.sync()
    assert (desk.row().starts_at, desk.row().conflict_since, desk.busy()) == (tomorrow(14), None, [])
    desk.settle(lambda: len(desk.texts()) == 2)


def test_two_appointments_that_change_places_both_follow(desk):
    first, second = desk.book(9), desk.book(11, "Grace", GRACE)
    quiet(desk)
    desk.drag(first, 11)
    desk.drag(second, 9)
    desk.sync()
    assert (desk.row().starts_at, desk.row("Grace").starts_at) == (tomorrow(11), tomorrow(9))
    assert conflicts(desk) == []
    desk.settle(lambda: [len(desk.texts()), len(desk.texts(GRACE))] == [2, 2])


def test_a_calendar_that_nobody_speaks_of_is_looked_at_every_quarter_of_an_hour(desk):
    quiet(desk)
    desk.enter(8, 9)
    calendar_sync.tend(desk.platform)
    assert desk.at_rest()
    due = desk.one("SELECT next_sync_at - synced_at FROM calendar_syncs")
    assert timedelta(minutes=11) < due < timedelta(minutes=19)
    desk.all("UPDATE calendar_syncs SET next_sync_at = now() RETURNING 1")
    for _ in range(3):
        calendar_sync.tend(desk.platform)
    assert (
        desk.one("SELECT count(*) FROM webhook_delivery_log WHERE finished_at IS NULL AND type = 'calendar.sync'") == 1
    )
    desk.settle(lambda: desk.busy() and desk.at_rest())


def test_the_watcher_tends_calendars_when_it_is_the_elected_process(platform, people, world):
    platform.watcher.tick()
    with platform.database.transaction(system=True) as session:
        planned = session.execute(
            text("SELECT org_id FROM webhook_delivery_log WHERE type = 'calendar.sync'")
        ).scalars()
        assert set(planned) == {people.salon.id, people.dental.id}
        assert not hold_singleton(session, "watcher", holder="another", lease=timedelta(seconds=60))


def test_a_token_is_no_good_for_another_calendar(desk, people):
    desk.enter(8, 9)
    desk.settle(lambda: desk.busy() and desk.at_rest())
    desk.all("UPDATE calendar_syncs SET calendar_id = 'another@example.com' RETURNING 1")
    before = len(desk.syncs())
    desk.sync()
    assert ["syncToken" in one["query"] for one in desk.syncs()[before:]] == [False]


def test_harbour_dental_sees_nothing_of_the_salons_mirror_and_cannot_write_into_it(desk, people):
    desk.enter(8, 9)
    desk.settle(lambda: desk.busy() and desk.at_rest())
    salon = {"org": desk.business.id, "integration": desk.one("SELECT integration_id FROM calendar_syncs")}
    with desk.platform.database.transaction(people.dental.id) as session:
        for table in ("busy_periods", "calendar_syncs", "calendar_channels"):
            assert session.execute(text(f"SELECT count(*) FROM {table} WHERE org_id = :org"), salon).scalar() == 0
            touched = session.execute(
                text(f"UPDATE {table} SET org_id = org_id WHERE org_id = :org RETURNING 1"), salon
            )
            assert touched.all() == []
    into = "INSERT INTO calendar_syncs (org_id, integration_id) VALUES (:org, :integration)"
    dental = desk.platform.database.transaction(people.dental.id)
    with pytest.raises(ProgrammingError, match="row-level security"), dental as session:
        session.execute(text(into), salon)


def conflicts(desk: Desk) -> list[str]:
    """The appointments that an operator is alerted of."""
    (look,) = (look for look in SHARED if "calendar_conflict" in look.kinds)
    return [one for cause in look.find(desk.platform) for one in cause.facts["appointment_ids"]]


def quiet(desk: Desk) -> None:
    """No notification arrives from now on: nobody listens there."""
    desk.world.pushes(via="http://127.0.0.1:9")
