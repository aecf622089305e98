"""A whole call in each language, from the greeting to the reminder: everything said and texted is in it, and whole."""

from __future__ import annotations

import re

import pytest
from sqlalchemy import text

from app.services.catalogue import CATALOGUE, LANGUAGES
from app.services.reminders import due_at
from app.services.wording import Wording
from tests.bookings import ADA, BERLIN, on
from tests.command_line import CommandLine
from tests.integration.test_reminders import at as at
from tests.integration.test_text_dialogue import OWNER, Phone

# What a language says, with anything in the place of its values.
HEARD = {
    language: [
        re.compile("".join(".+" if part[:1] == "{" else re.escape(part) for part in re.split(r"(\{\w+\})", sentence)))
        for key, sentence in sentences.items()
        if key.startswith(("text.", "notice.", "said."))
    ]
    for language, sentences in CATALOGUE.sentences.items()
}


@pytest.fixture
def used(monkeypatch) -> set[str]:
    """Which sentences were asked for."""
    keys: set[str] = set()
    real = Wording._template

    def noting(self: Wording, key: str) -> str:
        keys.add(key)
        return real(self, key)

    monkeypatch.setattr(Wording, "_template", noting)
    return keys


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_whole_call_and_what_follows_it_is_in_the_organizations_language(
    app, client, platform, people, world, settle, at, used, language
):
    salon, cli = people.salon, CommandLine(app)
    cli.data("org", "set", salon.id, "--language", language, "--notify", OWNER, "--notice", 60, "--ahead", 60)
    for name, minutes, *price in (("Schnitt", 30, "--price", "25 €"), ("Farbe", 60)):
        cli.data("service", "add", salon.id, name, "--minutes", minutes, *price)
    cli.data("staff", "add", salon.id, "Ann", "--service", "Schnitt")
    cli.data("staff", "add", salon.id, "Bob")
    said: list[str] = []
    caller = {"phone": ADA, "name": "Ada"}

    def ask(tool: str, **given: object) -> str:
        said.append(salon.tool(client, tool, call_id=f"call-{len(said)}", **given))
        return said[-1]

    asked = {"type": "assistant-request", "call": {"id": "c"}}
    assert salon.vapi(client, asked).get_json()["assistantOverrides"]["variableValues"]["language"] == language
    moved = salon.vapi(client, {"type": "transfer-destination-request", "call": {"id": "c"}}).get_json()
    said.append(moved["message"]["content"])
    ask("make_coffee")
    ask("check_availability", start=f"{on(3, 0):%Y-%m-%d}")  # which service?
    ask("check_availability", start=f"{on(3, 0):%Y-%m-%d}", service="Schnitt")
    ask("check_availability", start=on(90, 9).isoformat(), service="Farbe")  # none so far ahead
    ask("book_appointment", start=on(3, 10).isoformat(), service="Rasur", **caller)
    ask("book_appointment", start=on(3, 10).isoformat(), service="Farbe", staff="Ann", **caller)
    ask("book_appointment", start=on(3, 10).isoformat(), service="Farbe", staff="Zoe", **caller)
    ask("book_appointment", start=on(-1, 10).isoformat(), service="Farbe", **caller)
    ask("book_appointment", start=on(90, 10).isoformat(), service="Farbe", **caller)
    ask("book_appointment", start="bald", service="Farbe", **caller)
    ask("book_appointment", start=on(3, 10).isoformat(), service="Farbe", name="Ada", phone="12")
    ask("book_appointment", name="Ada")
    ask("cancel_appointment", phone=ADA)
    cli.data("closure", "add", salon.id, "Urlaub", f"{on(9, 0):%Y-%m-%d}")
    ask("book_appointment", start=on(9, 10).isoformat(), service="Farbe", **caller)
    ask("book_appointment", start=on(3, 10).isoformat(), service="Farbe", staff="Bob", **caller)
    ask("book_appointment", start=on(3, 10).isoformat(), service="Farbe", **{**caller, "phone": "+4915112340000"})
    ask("reschedule_appointment", phone=ADA, new_start=on(4, 10).isoformat())
    ask("send_text", phone=ADA, text="Hallo")
    ada = Phone(client, platform, salon, world, settle)
    settle(lambda: len(ada.heard()) == 3)
    ada.says("R")
    ada.says("99")
    ada.says("m")
    ada.says("1")
    with platform.database.transaction(salon.id) as session:
        starts = session.scalar(text("SELECT starts_at FROM appointments WHERE status = 'booked'"))
    at(due_at(starts, BERLIN, ["21:00", "08:00"]))
    settle(lambda: len(ada.heard()) == 8)
    ask("cancel_appointment", phone=ADA)
    settle(lambda: len(ada.heard()) == 9)
    ada.says("C")
    _check(said, ada, platform, salon, language)
    expected = {"said.free_times", "said.taken", "said.booked", "said.moved", "said.cancelled", "said.transfer"}
    expected |= {
        f"text.{name}" for name in ("confirmation", "moved", "choose_time", "not_a_choice", "reminder", "cancelled")
    }
    expected |= {f"notice.{name}" for name in ("booked", "moved", "cancelled")}
    expected |= {f"refused.{name}" for name in ("which_service", "unknown_service", "other_staff", "closure", "past")}
    assert expected - used == set()


def _check(said, ada, platform, salon, language) -> None:
    with platform.database.transaction(salon.id) as session:
        texted = list(
            session.scalars(text("SELECT body FROM messages WHERE direction = 'outbound' AND purpose <> 'tool'"))
        )
    for sentence in [*said, *texted]:
        assert not re.search(r"[{}]|\bNone\b|  |UTC", sentence), sentence
        assert any(one.search(sentence) for one in HEARD[language]), sentence
        assert language == "en" or not any(one.fullmatch(sentence) for one in HEARD["en"]), sentence
