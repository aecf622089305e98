"""Services, staff, closures, notice and seats: the assistant offers and books only what they allow."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from tests.bookings import ADA, book, free, on, rows
from tests.command_line import CommandLine


@pytest.fixture
def typed(app, platform):
    """The command line; what it sets is seen by the next call."""
    return CommandLine(app)


def open_hours(typed, business, hours: list[list[str]]) -> None:
    days = dict.fromkeys(("mon", "tue", "wed", "thu", "fri", "sat", "sun"), hours)
    done = typed.run("org", "set", business.id, "--hours", "-", stdin=json.dumps(days))
    assert done.exit_code == 0, done.stderr


# --- services --------------------------------------------------------------------------------------


def test_a_service_is_booked_with_its_length_and_its_buffers_are_nobody_elses(client, platform, people, typed):
    typed.data("service", "add", people.salon.id, "Colour", "--minutes", 90, "--before", 10, "--after", 30)
    assert book(client, people.salon, on(1, 10), "c1").startswith("Booked for")
    (row,) = rows(platform, people.salon)
    assert (row.service, row.starts_at, row.ends_at) == ("Colour", on(1, 10), on(1, 11, 30))
    assert (row.holds_from, row.holds_until) == (on(1, 9, 50), on(1, 12))
    offered = free(client, people.salon, on(1, 10), on(1, 15))
    assert on(1, 12).isoformat() not in offered  # its own ten minutes before would meet the thirty after
    assert on(1, 12, 30).isoformat() in offered
    assert "is taken" in book(client, people.salon, on(1, 12), "c2")


def test_of_several_services_the_one_that_is_meant_is_found_whatever_it_is_called(client, platform, people, typed):
    typed.data("service", "add", people.salon.id, "Haarschnitt für Damen", "--minutes", 45, "--price", "ab 30 Euro")
    typed.data("service", "add", people.salon.id, "Färben", "--minutes", 120)
    said = book(client, people.salon, on(1, 9), "c1")
    assert "which service is it? We offer Färben (2 hours), Haarschnitt für Damen (45 minutes, ab 30 Euro)" in said
    assert "we don't offer that" in book(client, people.salon, on(1, 9), "c2", service="Massage")
    for number, name in enumerate(("faerben farben", "HAARSCHNITT", "haarschnit damen")):
        assert book(client, people.salon, on(2, 9 + 3 * number), f"d{number}", service=name).startswith("Booked for")
    assert [row.service for row in rows(platform, people.salon)] == ["Färben"] + ["Haarschnitt für Damen"] * 2


def test_an_appointment_keeps_its_service_when_it_is_moved_and_may_get_another(client, platform, people, typed):
    typed.data("service", "add", people.salon.id, "Cut", "--minutes", 20, "--after", 10)
    typed.data("service", "add", people.salon.id, "Colour", "--minutes", 60)
    book(client, people.salon, on(1, 9), "c1", service="cut")
    move = {"call_id": "c2", "phone": ADA, "new_start": on(1, 14).isoformat()}
    assert people.salon.tool(client, "reschedule_appointment", **move).startswith("Moved to")
    (row,) = rows(platform, people.salon)
    assert (row.service, row.ends_at, row.holds_until) == ("Cut", on(1, 14, 20), on(1, 14, 30))
    move |= {"call_id": "c3", "new_start": on(1, 16).isoformat(), "service": "colour"}
    assert people.salon.tool(client, "reschedule_appointment", **move).startswith("Moved to")
    (row,) = rows(platform, people.salon)
    assert (row.service, row.ends_at, row.holds_until) == ("Colour", on(1, 17), on(1, 17))


def test_a_service_that_is_offered_no_more_is_not_booked_and_what_is_booked_stays_as_it_is(
    client, platform, people, typed
):
    made = typed.data("service", "add", people.salon.id, "Cut", "--minutes", 20)
    book(client, people.salon, on(1, 9), "c1")
    typed.data("service", "set", made["id"], "--inactive")
    move = {"call_id": "c2", "phone": ADA, "new_start": on(1, 14).isoformat()}
    assert people.salon.tool(client, "reschedule_appointment", **move).startswith("Moved to")
    assert rows(platform, people.salon)[0].ends_at == on(1, 14, 20)
    book(client, people.salon, on(1, 16), "c3")
    assert rows(platform, people.salon)[1].ends_at == on(1, 16, 30)  # the slot of a business without services


# --- when ------------------------------------------------------------------------------------------


def test_why_a_time_is_not_possible_is_said(client, people, typed):
    open_hours(typed, people.salon, [["09:00", "12:00"], ["13:00", "17:00"]])
    assert "we close at 17:00" in book(client, people.salon, on(1, 16, 45), "c1")
    assert "we open at 09:00" in book(client, people.salon, on(1, 8), "c2")
    assert "09:00 to 12:00 and 13:00 to 17:00" in book(client, people.salon, on(1, 12, 15), "c3")
    typed.data("org", "set", people.salon.id, "--notice", 2880, "--ahead", 10)
    assert "that is too soon: we need 2 days of notice" in book(client, people.salon, on(1, 10), "c4")
    assert "that is too far ahead: we book 10 days ahead" in book(client, people.salon, on(11, 10), "c5")
    assert book(client, people.salon, on(10, 16, 30), "c6").startswith("Booked for")


def test_nothing_is_offered_too_soon_too_far_ahead_or_in_the_break(client, people, typed):
    open_hours(typed, people.salon, [["09:00", "10:00"], ["13:00", "14:00"]])
    typed.data("org", "set", people.salon.id, "--notice", 3 * 1440, "--ahead", 5)
    offered = free(client, people.salon, on(0, 0), on(20, 0))
    starts = [datetime.fromisoformat(part.split(")")[0]) for part in offered.split("(")[1:]]
    assert all(datetime.now(UTC) + timedelta(days=3) <= start < on(6, 0) for start in starts)
    assert {f"{start:%H:%M}" for start in starts} == {"09:00", "09:30", "13:00", "13:30"}


def test_a_closure_is_said_by_its_name_and_nothing_is_offered_in_it(client, people, typed):
    day = on(2, 0).date()
    made = typed.data("closure", "add", people.salon.id, "Company outing", f"{day}")
    said = book(client, people.salon, on(2, 10), "c1")
    assert "we are closed then: Company outing" in said
    assert on(2, 10, 30).isoformat() not in said
    assert on(3, 0).isoformat() in said
    assert free(client, people.salon, on(2, 0), on(3, 0)).startswith("There are no free times")
    typed.data("closure", "remove", made["id"])
    assert book(client, people.salon, on(2, 10), "c2").startswith("Booked for")


def test_a_closure_of_hours_leaves_the_rest_of_the_day(client, people, typed):
    day = on(2, 0).date()
    typed.data("closure", "add", people.salon.id, "Training", f"{day}T09:00", "--until", f"{day}T12:00")
    assert "Training" in book(client, people.salon, on(2, 11, 45), "c1")
    assert book(client, people.salon, on(2, 12), "c2").startswith("Booked for")


# --- with whom -------------------------------------------------------------------------------------


def test_whoever_is_free_takes_it_and_when_all_are_taken_others_are_offered(client, platform, people, typed):
    for name in ("Ann", "Bob"):
        typed.data("staff", "add", people.salon.id, name)
    assert book(client, people.salon, on(1, 10), "c1").startswith("Booked for")
    assert book(client, people.salon, on(1, 10), "c2").startswith("Booked for")
    assert [row.staff for row in rows(platform, people.salon)] == ["Ann", "Bob"]
    said = book(client, people.salon, on(1, 10), "c3")
    assert "is taken. Free times:" in said
    assert on(1, 10, 30).isoformat() in said


def test_each_does_what_they_do_in_their_own_hours(client, platform, people, typed):
    for name in ("Cut", "Colour"):
        typed.data("service", "add", people.salon.id, name, "--minutes", 30)
    typed.data("staff", "add", people.salon.id, "Ann Müller", "--service", "colour")
    hours = json.dumps(dict.fromkeys(("mon", "tue", "wed", "thu", "fri", "sat", "sun"), [["10:00", "14:00"]]))
    done = typed.run("staff", "add", people.salon.id, "Bob", "--hours", "-", stdin=hours)
    assert done.exit_code == 0, done.stderr
    assert "Ann Müller doesn't do Cut" in book(client, people.salon, on(1, 11), "c1", service="cut", staff="muller")
    assert "we close at 14:00" in book(client, people.salon, on(1, 15), "c2", service="cut")
    assert "there is nobody of that name" in book(client, people.salon, on(1, 11), "c3", service="cut", staff="Zoe")
    assert book(client, people.salon, on(1, 11), "c4", service="colour", staff="ann").startswith("Booked for")
    assert book(client, people.salon, on(1, 11), "c5", service="cut", staff="BOB").startswith("Booked for")
    assert [row.staff for row in rows(platform, people.salon)] == ["Ann Müller", "Bob"]
    assert on(1, 15).isoformat() not in free(client, people.salon, on(1, 14), on(1, 16), service="cut")
    assert on(1, 15).isoformat() in free(client, people.salon, on(1, 14), on(1, 16), service="colour")


def test_leave_of_one_leaves_the_others(client, platform, people, typed):
    for name in ("Ann", "Bob"):
        typed.data("staff", "add", people.salon.id, name)
    typed.data("closure", "add", people.salon.id, "Leave", f"{on(1, 0).date()}", "--staff", "ann")
    assert "Ann cannot be had then" in book(client, people.salon, on(1, 10), "c1", staff="Ann")
    book(client, people.salon, on(1, 10), "c2")
    assert [row.staff for row in rows(platform, people.salon)] == ["Bob"]


def test_each_is_written_in_their_own_calendar_and_kept_busy_by_it(client, platform, people, world, typed):
    for name in ("Ann", "Bob"):
        world.calendar(f"{name}@salon.example")
        typed.data("staff", "add", people.salon.id, name, "--calendar", f"{name}@salon.example")
    world.insert_foreign_event("Ann@salon.example", on(1, 10), on(1, 11))
    assert book(client, people.salon, on(1, 10), "c1").startswith("Booked for")
    assert [row.staff for row in rows(platform, people.salon)] == ["Bob"]
    assert [event["summary"] for event in world.events("Bob@salon.example")] == ["Ada"]
    assert world.events(people.salon.calendar_id) == []
    said = book(client, people.salon, on(1, 10, 30), "c2", staff="Ann")
    assert "is taken" in said
    move = {"call_id": "c3", "phone": ADA, "new_start": on(1, 15).isoformat()}
    assert "keeps another calendar" in people.salon.tool(client, "reschedule_appointment", staff="Ann", **move)
    move["call_id"] = "c4"
    assert people.salon.tool(client, "reschedule_appointment", **move).startswith("Moved to")
    (event,) = world.events("Bob@salon.example")
    assert datetime.fromisoformat(event["start"]["dateTime"]) == on(1, 15)


# --- everything else -------------------------------------------------------------------------------


def test_another_organizations_rules_are_neither_seen_nor_followed(client, platform, people, typed):
    typed.data("service", "add", people.dental.id, "Check-up", "--minutes", 15)
    typed.data("staff", "add", people.dental.id, "Dr Grey", "--service", "check-up")
    typed.data("closure", "add", people.dental.id, "Outing", f"{on(1, 0).date()}")
    assert book(client, people.salon, on(1, 9), "c1").startswith("Booked for")
    assert [(row.service, row.staff) for row in rows(platform, people.salon)] == [(None, None)]
    with platform.database.transaction(people.salon.id) as session:
        for table in ("services", "resources", "resource_services", "closures"):
            assert session.execute(text(f"SELECT count(*) FROM {table}")).scalar() == 0


def test_names_are_once_and_nonsense_is_refused_by_name(people, typed):
    typed.data("service", "add", people.salon.id, "Cut", "--minutes", 30)
    assert typed.refusal("service", "add", people.salon.id, "CUT", "--minutes", 30)["code"] == "already_exists"
    assert "minutes" in typed.refusal("service", "add", people.salon.id, "Trim", "--minutes", 0)["message"]
    assert "service" in typed.refusal("staff", "add", people.salon.id, "Ann", "--service", "Massage")["message"]
    day = on(2, 0).date()
    late = typed.refusal("closure", "add", people.salon.id, "Odd", f"{day}", "--until", f"{day - timedelta(days=1)}")
    assert "begin before it ends" in late["message"]
    assert "notice" in typed.refusal("org", "set", people.salon.id, "--notice", -1)["message"]
    shown = typed.data("staff", "add", people.salon.id, "Ann", "--service", "cut", "--seats", 2)
    assert (shown["services"], shown["seats"], shown["kind"]) == (["Cut"], 2, "staff")
    assert [one["name"] for one in typed.data("staff", "list", "--org", people.salon.id)] == ["Ann"]


def test_the_tools_tell_the_assistant_of_service_and_staff(typed):
    tools = {one["function"]["name"]: one["function"]["parameters"] for one in typed.data("tools")}
    for name in ("check_availability", "book_appointment", "reschedule_appointment"):
        assert {"service", "staff"} <= set(tools[name]["properties"])
        assert not {"service", "staff"} & set(tools[name]["required"])


def test_programs_get_the_free_times_of_a_service_and_hear_when_it_is_not_clear_which(app, client, people, typed):
    salon = people.salon
    key = typed.data("key", "create", salon.id)["api_key"]
    for name, minutes in (("Cut", 30), ("Colour", 90)):
        typed.data("service", "add", salon.id, name, "--minutes", minutes)

    def ask(**query: str):
        given = {"date": f"{on(1, 0).date()}", **query}
        return client.get("/api/v1/availability", query_string=given, headers={"Authorization": f"Bearer {key}"})

    found = ask(service="colour").get_json()
    assert (found["service"], found["slot_minutes"]) == ("Colour", 90)
    assert datetime.fromisoformat(found["slots"][0]["ends_at"]) == on(1, 1, 30)
    refused = ask()
    assert refused.status_code == 422
    assert refused.get_json()["code"] == "which_service"
