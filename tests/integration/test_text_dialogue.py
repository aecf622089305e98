"""Cancelling and moving an appointment by text, in a few turns."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

import pytest
from sqlalchemy import text

from app.services import text_dialogue
from tests.bookings import ADA, BERLIN, on, rows
from tests.command_line import CommandLine

OWNER = "+4915187650000"


class Phone:
    """A customer with a phone: texts, and what comes back."""

    def __init__(self, client, platform, business, world, settle, number: str = ADA) -> None:
        self.client, self.platform, self.business = client, platform, business
        self.world, self.settle, self.number = world, settle, number

    def says(self, body: str, *, answers: int = 1, sid: str | None = None) -> str:
        """Text it; the last answer, once there are so many more."""
        before = len(self.heard())
        assert self.business.text(self.client, self.number, body, sid=sid).status_code == 200
        self.settle(lambda: len(self.heard()) >= before + answers)
        return self.heard()[-1] if answers else ""

    def heard(self) -> list[str]:
        return [message["body"] for message in self.world.messages() if message["to"] == self.number]

    def stored(self) -> int:
        with self.platform.database.transaction(self.business.id) as session:
            statement = "SELECT count(*) FROM messages WHERE direction = 'inbound'"
            return session.scalar(text(statement))

    def book(self, start, call_id: str = "c") -> None:
        said = self.business.tool(
            self.client, "book_appointment", call_id=call_id, start=start.isoformat(), name="Ada", phone=self.number
        )
        assert said.startswith("Booked for"), said
        self.settle(
            lambda: sum("confirmed for" in one for one in self.heard()) >= len(rows(self.platform, self.business))
        )


@pytest.fixture
def ada(client, platform, people, world, settle) -> Phone:
    return Phone(client, platform, people.salon, world, settle)


def options(said: str) -> list[str]:
    return re.findall(r"\d\) (.+?)(?:;|\. Reply)", said)


def when(row) -> str:
    local = row.starts_at.astimezone(BERLIN)
    return f"{local:%A} {local.day} {local:%B} at {local:%H:%M}"


def test_r_offers_times_m_more_of_them_and_a_number_moves_the_appointment(ada, platform, people, world):
    ada.book(on(2, 10))
    first = options(ada.says("R"))
    assert len(first) == text_dialogue.OFFERED
    more = options(ada.says(" m "))
    assert not set(first) & set(more)
    moved = ada.says("2.")
    assert more[1] in moved
    assert "is moved to" in moved
    (row,) = rows(platform, people.salon)
    assert when(row) == more[1]
    (event,) = [one for one in world.events(people.salon.calendar_id) if one["status"] != "cancelled"]
    assert datetime.fromisoformat(event["start"]["dateTime"]) == row.starts_at
    count = ada.stored()
    ada.says("1", answers=0)  # nothing is asked any more: a person reads it
    ada.settle(lambda: ada.stored() == count + 1)
    assert len(rows(platform, people.salon)) == 1
    assert ada.heard()[-1] == moved


def test_of_several_appointments_it_is_asked_which(ada, platform, people):
    ada.book(on(2, 10), "one")
    ada.book(on(3, 10), "two")
    assert len(options(ada.says("cancel"))) == 2
    assert "from 1 to 2" in ada.says("7")
    assert "is cancelled" in ada.says("2")
    assert [row.status for row in rows(platform, people.salon)] == ["booked", "cancelled"]
    ada.book(on(4, 10), "three")
    ada.says("verschieben")
    assert len(options(ada.says("1"))) == text_dialogue.OFFERED
    assert "is moved to" in ada.says("1")


def test_a_time_that_has_gone_is_not_given_twice_and_others_are_offered(ada, client, platform, people, settle, world):
    ada.book(on(2, 10))
    offered = options(ada.says("R"))
    with platform.database.transaction(people.salon.id) as session:
        start = session.scalar(text("SELECT options ->> 0 FROM text_dialogues"))
    other = Phone(client, platform, people.salon, world, settle, "+4915112340000")
    people.salon.tool(client, "book_appointment", call_id="x", start=start, name="Bo", phone=other.number)
    said = ada.says("1")
    assert "that time has gone" in said
    assert offered[0] not in options(said)
    assert "is moved to" in ada.says("1")


def test_an_offer_ends_and_a_text_that_comes_twice_is_one(ada, platform, people, monkeypatch):
    ada.book(on(2, 10))
    monkeypatch.setattr(text_dialogue, "LASTS", timedelta(seconds=-1))
    ada.says("R")
    assert "has ended" in ada.says("1")
    monkeypatch.undo()
    sid = "SM" + "7" * 32
    before = len(ada.heard())
    ada.says("R", sid=sid)
    ada.says("R", answers=0, sid=sid)
    assert "is cancelled" in ada.says("C")
    assert len(ada.heard()) == before + 2
    assert "no upcoming appointment" in ada.says("R")


def test_a_crash_between_the_move_and_the_answer_repeats_the_turn_and_doubles_nothing(
    ada, platform, people, monkeypatch
):
    ada.book(on(2, 10))
    wanted = options(ada.says("R"))[2]
    real, fails = text_dialogue.messages.record_inbound, iter([True])

    def crash_once(*given):
        if next(fails, False):
            raise RuntimeError("killed here")
        return real(*given)

    monkeypatch.setattr(text_dialogue.messages, "record_inbound", crash_once)
    assert wanted in ada.says("3")
    ada.settle(lambda: ada.stored() == 2)
    (row,) = rows(platform, people.salon)
    assert when(row) == wanted
    assert sum("is moved to" in one for one in ada.heard()) == 1


def test_without_the_calendar_it_is_said_and_the_business_is_told(
    app, ada, platform, people, world, settle, monkeypatch
):
    monkeypatch.setattr(text_dialogue, "DEADLINE_SECONDS", 1.0)
    CommandLine(app).data("org", "set", people.salon.id, "--notify", OWNER)
    ada.book(on(2, 10))
    world.fault("google", "error_500")
    assert "can't look at the calendar" in ada.says("R")
    owner = Phone(None, platform, people.salon, world, settle, OWNER)
    settle(lambda: len(owner.heard()) == 2)
    assert owner.heard()[0].startswith("New booking: Ada, appointment, ")
    assert owner.heard()[1].startswith("Not done: Ada wants to move appointment on ")


def test_the_business_hears_of_what_it_wants_to_hear_of(app, ada, platform, people, world, settle, client):
    cli = CommandLine(app)
    cli.data("org", "set", people.salon.id, "--notify", OWNER, "--notify-about", "changes,unfinished")
    owner = Phone(client, platform, people.salon, world, settle, OWNER)
    ada.book(on(2, 10))
    ada.says("R")
    ada.says("1")
    ada.says("C")
    settle(lambda: len(owner.heard()) == 2)
    assert [one.partition(":")[0] for one in owner.heard()] == ["Moved", "Cancelled"]
    assert all(one.endswith(f"Phone: {ADA}.") for one in owner.heard())
    refused = cli.refusal("org", "set", people.salon.id, "--notify-about", "gossip")
    assert "bookings, changes, unfinished" in refused["message"]


def test_a_call_that_ends_with_a_wish_undone_is_told_to_the_business_once(app, client, platform, people, world, settle):
    CommandLine(app).data("org", "set", people.salon.id, "--notify", OWNER)
    world.fault("google", "error_500")
    for call_id in ("helped", "undone"):
        people.salon.tool(client, "check_availability", call_id=call_id, start=on(2, 10).isoformat())
    people.salon.tool(client, "cancel_appointment", call_id="helped", phone=ADA)
    for call_id in ("helped", "undone"):
        call = {"id": call_id, "customer": {"number": ADA}}
        report = {"type": "end-of-call-report", "call": call, "endedReason": "customer-ended-call", "analysis": {}}
        assert people.salon.vapi(client, report).status_code == 200
    owner = Phone(client, platform, people.salon, world, settle, OWNER)
    settle(lambda: owner.heard())
    assert owner.heard() == [f"Not done on the phone: a caller was not helped to the end. Phone: {ADA}."]
