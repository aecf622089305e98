"""Every sentence that ships is really said or texted: scenes over HTTP, and what none of them has played is named."""

from __future__ import annotations

import json
import os
import re
import secrets
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import text

from app.services import spool_drain, text_dialogue
from app.services.catalogue import CATALOGUE
from app.services.platform import Platform
from app.services.reminders import due_at
from app.services.slots import DAYS
from app.services.wording import Wording
from sandbox.standins import RemoteWorld
from tests.bookings import ADA, BERLIN, on
from tests.command_line import CommandLine
from tests.eventually import eventually
from tests.integration.stage import Stage, Wire, pattern_of, sentences_of
from tests.integration.test_booking import hurry_finishing
from tests.integration.test_booking_daylight_saving import next_change
from tests.integration.test_booking_races import refuse_for_good
from tests.integration.test_reminders import at as at
from tests.people import ALWAYS_OPEN

BO, OWNER = "+4915112340000", "+4915187650000"
# What no scene can play, and why.
UNPLAYED = {
    "said.pending": "worked out only for what is done after the call, when nobody is on the line to hear it",
}
# The house's own, in its own language: whose number it is nobody knows.
HOUSES = {"said.away", "said.not_set_up"}
# One language in each run of all tests; EVERY_TEMPLATE_IN=de and so on plays the scenes in another.
LANGUAGE = os.environ.get("EVERY_TEMPLATE_IN", "en")


def a_good_call(stage: Stage) -> None:
    """Asked, booked, moved, cancelled and put through, and the business told of each; reminded in between."""
    salon = stage.open(notify=OWNER)
    stage.is_said("said.free_times", stage.ask(salon, "check_availability", start=on(3, 0).isoformat()))
    stage.book(salon, on(3, 10))
    stage.book(salon, on(3, 10), phone=BO)  # taken
    stage.settle(lambda: len(stage.heard(salon)) == 1)
    stage.at(due_at(on(3, 10), BERLIN, ["21:00", "08:00"]))
    stage.settle(lambda: len(stage.heard(salon)) == 2)
    stage.ask(salon, "reschedule_appointment", phone=ADA, new_start=on(4, 10).isoformat())
    stage.ask(salon, "cancel_appointment", phone=ADA)
    stage.ask(salon, "send_text", phone=ADA, text="our address is here")
    stage.vapi(salon, "transfer-destination-request")
    stage.settle(lambda: len(stage.heard(salon, OWNER)) == 3 and len(stage.heard(salon)) == 5)


def a_number_that_has_opted_out(stage: Stage) -> None:
    """It is promised no text."""
    salon = stage.open()
    assert salon.text(stage.wire, ADA, "STOP").status_code == 200
    stage.book(salon, on(3, 10))
    stage.ask(salon, "reschedule_appointment", phone=ADA, new_start=on(4, 10).isoformat())
    stage.ask(salon, "send_text", phone=ADA, text="our address is here")
    with stage.google("error_500"):
        stage.book(salon, on(5, 10))


def numbers_that_nobody_answers(stage: Stage) -> None:
    """Not set up, without an assistant, without anybody to put through to, suspended."""
    salon = stage.open(assistant="", transfer="")
    stage.vapi(salon, "assistant-request")
    stage.vapi(salon, "transfer-destination-request")
    stage.cli.data("org", "suspend", salon.id)
    stage.vapi(salon, "assistant-request")
    secret = secrets.token_hex(16)
    made = stage.cli.data("integration", "add", "--platform", "vapi", "--set", f"webhook_secret={secret}")
    answer = stage.wire.post(
        f"/webhooks/vapi/{made['token']}",
        data=json.dumps({"message": {"type": "assistant-request", "call": {"id": "nobody's"}}}),
        content_type="application/json",
        headers={"X-Vapi-Secret": secret},
    )
    stage.said += sentences_of(answer.get_json())


def what_is_said_wrongly(stage: Stage) -> None:
    """Missing, unreadable, unknown and impossible."""
    salon = stage.open()
    stage.ask(salon, "make_coffee")
    stage.ask(salon, "book_appointment", name="Ada")
    stage.ask(salon, "cancel_appointment", phone=ADA)
    stage.book(salon, "soon")
    stage.book(salon, on(3, 10), phone="12")
    stage.ask(salon, "check_availability", start=on(3, 10).isoformat(), end=on(2, 10).isoformat())
    unreadable = {"id": "t", "type": "function", "function": {"name": "send_text", "arguments": "{not JSON"}}
    stage.vapi(salon, "tool-calls", toolCallList=[unreadable])


def the_days_of_both_changes(stage: Stage) -> None:
    """A time that is skipped, and one that the clocks show twice."""
    salon = stage.open()
    skipped, twice = next_change("Europe/Berlin", forward=True), next_change("Europe/Berlin", forward=False)
    stage.book(salon, f"{skipped}T02:30")
    stage.book(salon, f"{twice}T02:30")


def services_and_staff(stage: Stage) -> None:
    """Which, with whom, and who does not."""
    salon, cli = stage.open(), stage.cli
    for name, *price in (("Haircut long", "--price", "25 EUR"), ("Haircut short",), ("Colour",), ("Shave",)):
        cli.data("service", "add", salon.id, name, "--minutes", 30, *price)
    cli.data("staff", "add", salon.id, "Ann", "--service", "Haircut long")
    stage.world.calendar("bob@example.com")
    cli.data("staff", "add", salon.id, "Bob", "--service", "Colour", "--calendar", "bob@example.com")
    other_days = json.dumps({day: hours for day, hours in ALWAYS_OPEN.items() if day != DAYS[on(3, 0).weekday()]})
    cli.data("staff", "add", salon.id, "Cleo", "--service", "Colour", "--hours", "-", stdin=other_days)
    stage.book(salon, on(3, 10))
    stage.book(salon, on(3, 10), service="Haircut")
    stage.book(salon, on(3, 10), service="Massage")
    stage.book(salon, on(3, 10), service="Shave")
    stage.book(salon, on(3, 10), service="Colour", staff="Ann")
    stage.book(salon, on(3, 10), service="Colour", staff="Zoe")
    stage.book(salon, on(3, 10), service="Colour", staff="Cleo")
    cli.data("closure", "add", salon.id, "Leave", f"{on(3, 0):%Y-%m-%d}", "--staff", "Bob")
    stage.book(salon, on(3, 10), service="Colour", staff="Bob")
    stage.book(salon, on(4, 10), service="Haircut long")
    moved = {"phone": ADA, "new_start": on(5, 10).isoformat(), "service": "Colour", "staff": "Bob"}
    stage.ask(salon, "reschedule_appointment", **moved)


def hours_and_limits(stage: Stage) -> None:
    """Closed on every weekday, before, after and between the hours; too soon, too far, past, on holiday."""
    salon = stage.open(notice=60, ahead=20)
    stage.hours(salon, {day: [["09:00", "12:00"], ["13:00", "18:00"]] for day in ALWAYS_OPEN})
    for hour, minute in ((8, 0), (12, 15), (19, 0)):
        stage.book(salon, on(3, hour, minute))
    stage.book(salon, datetime.now(BERLIN) + timedelta(minutes=5))
    stage.book(salon, on(-1, 10))
    stage.book(salon, on(40, 10))
    stage.cli.data("closure", "add", salon.id, "Holiday", f"{on(9, 0):%Y-%m-%d}")
    stage.book(salon, on(9, 10))
    stage.hours(salon, {})
    for days in range(1, 8):
        stage.book(salon, on(days, 10))


def moving_and_cancelling_by_text(stage: Stage) -> None:
    """All that a customer may text, and what comes back."""
    salon = stage.open(notify=OWNER)
    stage.texts(salon, "C")  # nothing to cancel
    stage.book(salon, on(3, 10))
    stage.book(salon, on(4, 10))
    stage.settle(lambda: len(stage.heard(salon)) == 3)
    stage.texts(salon, "R")
    stage.texts(salon, "C")
    stage.texts(salon, "9")
    stage.texts(salon, "2")
    stage.texts(salon, "R")
    stage.book(salon, stage.sql(salon, "SELECT options ->> 0 FROM text_dialogues"), phone=BO)
    stage.texts(salon, "1")
    stage.sql(salon, "UPDATE text_dialogues SET expires_at = now()")
    stage.texts(salon, "1")
    stage.hours(salon, {})
    stage.texts(salon, "R")
    stage.hours(salon, ALWAYS_OPEN)
    stage.monkeypatch.setattr(text_dialogue, "DEADLINE_SECONDS", 1.0)
    with stage.google("error_500"):
        stage.texts(salon, "R")


def a_calendar_that_answers_with_errors(stage: Stage) -> None:
    """Noted, and then lost, refused or moved back: customer and business are told."""
    gone, full, refused = (stage.open(notify=OWNER) for _ in range(3))
    stage.book(gone, on(6, 10), phone=BO)
    with stage.google("error_500"):
        stage.ask(gone, "check_availability", start=on(3, 0).isoformat())
        stage.vapi(gone, "end-of-call-report", call={"id": f"call-{next(stage.numbers) - 1}"}, analysis={})
        stage.book(gone, on(6, 10))  # taken, and no others can be looked for
        for salon in (gone, full, refused):
            stage.book(salon, on(3, 10))
        stage.ask(gone, "reschedule_appointment", phone=BO, new_start=on(7, 10).isoformat())
        stage.world.insert_foreign_event(gone.calendar_id, on(3, 10), on(3, 11))
        stage.world.insert_foreign_event(gone.calendar_id, on(7, 10), on(7, 11))
        stage.world.insert_foreign_event(full.calendar_id, on(2, 0), on(20, 0))
    asked = {"start": on(3, 0).isoformat(), "end": on(9, 0).isoformat()}
    stage.is_said("said.no_free_times", stage.ask(full, "check_availability", **asked))
    refuse_for_good(stage.platform, refused)
    hurry_finishing(stage.platform)
    stage.settle(lambda: all(stage.heard(salon) for salon in (gone, full, refused)) and len(stage.heard(gone, BO)) == 2)
    stage.settle(lambda: len(stage.heard(gone, OWNER)) == 4)
    once = {"call_id": "refused", "tool_call_id": "t"}
    stage.book(refused, on(5, 10), **once)
    died = "UPDATE tool_answers SET result = NULL, started_at = now() - interval '1 h' WHERE call_id = 'refused'"
    stage.sql(refused, died)  # who answered died before it was recorded
    stage.book(refused, on(5, 10), **once)


def a_calendar_that_hangs(stage: Stage) -> None:
    """Only what is certain is said when a caller's time is up."""
    salon, pool = stage.open(), ThreadPoolExecutor(2)
    with stage.google("hang", patience=1.4):
        stage.ask(salon, "check_availability", start=on(3, 0).isoformat())
        calls = [
            {
                "id": f"t{number}",
                "function": {"name": "check_availability", "arguments": {"start": f"{on(3, 0):%Y-%m-%d}"}},
            }
            for number in (1, 2)
        ]
        stage.vapi(salon, "tool-calls", toolCallList=calls)
    with stage.google("hang", patience=3.2):
        first = pool.submit(stage.book, salon, on(3, 10), call_id="same", tool_call_id="same")
        eventually(lambda: stage.sql(salon, "SELECT count(*) FROM appointments") == 1)
        stage.patience(1.2)
        stage.is_said("said.working", stage.book(salon, on(3, 10), call_id="same", tool_call_id="same"))
        stage.is_said("said.cancelled", stage.ask(salon, "cancel_appointment", phone=ADA))
        stage.is_said("said.gone", first.result())
    stage.patience(1.2)
    with stage.platform.database.transaction(salon.id) as session:
        session.execute(text("LOCK TABLE appointments IN EXCLUSIVE MODE"))
        stage.is_said("said.uncertain", stage.book(salon, on(8, 10)))
    with stage.platform.database.transaction(salon.id) as session:
        session.execute(text("LOCK TABLE appointments IN ACCESS EXCLUSIVE MODE"))  # nor can they be read
        stage.is_said("said.calendar_away_message", stage.ask(salon, "check_availability", start=on(3, 0).isoformat()))
    pool.shutdown()
    stage.monkeypatch.undo()


def a_database_that_is_away(stage: Stage) -> None:
    """Taken down and done later; nothing is promised where nobody knows who was called."""
    salon = stage.open()
    stage.platform.directory.warm()
    with stage.away():
        stage.book(salon, on(3, 10))
        stage.ask(salon, "reschedule_appointment", phone=ADA, new_start=on(4, 10).isoformat())
        stage.ask(salon, "cancel_appointment", phone=BO)
        stage.ask(salon, "send_text", phone=ADA, text="our address is here")
        stage.ask(salon, "check_availability", start=on(3, 0).isoformat())
        wish = {"name": "send_text", "arguments": {"phone": "12", "text": "our address is here"}}
        call = {"id": "c", "customer": {"number": OWNER}}
        stage.vapi(salon, "tool-calls", call=call, toolCallList=[{"id": "t", "function": wish}])
        answer = stage.wire.post(
            "/webhooks/vapi/unknown-to-this-process-01",
            data=json.dumps({"message": {"type": "assistant-request", "call": {"id": "x"}}}),
            content_type="application/json",
            headers={},
        )
        stage.said += sentences_of(answer.get_json())
    spool_drain.drain(stage.platform)
    stage.settle(lambda: stage.heard(salon, OWNER) and stage.heard(salon, BO))


SCENES = (
    a_good_call,
    a_number_that_has_opted_out,
    numbers_that_nobody_answers,
    what_is_said_wrongly,
    the_days_of_both_changes,
    services_and_staff,
    hours_and_limits,
    moving_and_cancelling_by_text,
    a_calendar_that_answers_with_errors,
    a_calendar_that_hangs,
    a_database_that_is_away,
)


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Which sentences were asked for."""
    keys: set[str] = set()
    real = Wording._template

    def noting(self: Wording, key: str) -> str:
        keys.add(key)
        return real(self, key)

    monkeypatch.setattr(Wording, "_template", noting)
    return keys


def test_every_sentence_that_ships_is_said_or_texted_in_a_scene(
    app: Flask, served: str, platform: Platform, world: RemoteWorld, settle: Any, at: Any, away: Any, used: set[str]
) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        stage = Stage(Wire(served), platform, world, CommandLine(app), settle, at, away, monkeypatch, LANGUAGE)
        for scene in SCENES:
            scene(stage)
    heard = [*stage.said, *(one["body"] for one in world.messages())]
    played = {key for key in used if any(pattern_of(key, LANGUAGE).search(sentence) for sentence in heard)}
    missing = UNPLAYED.keys() | (HOUSES if LANGUAGE != "en" else set())
    assert sorted(CATALOGUE.placeholders.keys() - played) == sorted(missing)
    for sentence in heard:
        assert not re.search(r"[{}]|\bNone\b", sentence), sentence
