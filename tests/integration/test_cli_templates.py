"""An organization's language and its own words, as they are set by hand."""

from __future__ import annotations

import pytest

from tests.bookings import ADA
from tests.command_line import CommandLine

SID = "HX" + "a1" * 16


@pytest.fixture
def cli(app) -> CommandLine:
    return CommandLine(app)


def test_a_language_and_an_own_sentence_are_what_callers_hear(cli, client, people):
    salon = people.salon
    cli.data("org", "set", salon.id, "--language", "de")
    assert salon.tool(client, "cancel_appointment", call_id="c", phone=ADA).startswith("Ich finde zu dieser Nummer")
    shown = cli.data("template", "set", salon.id, "said.no_appointment", "--text", "Da  ist nichts.")
    assert (shown["text"], shown["is_own"], shown["language"]) == ("Da ist nichts.", True, "de")
    assert salon.tool(client, "cancel_appointment", call_id="d", phone=ADA) == "Da ist nichts."
    dental = people.dental.tool(client, "cancel_appointment", call_id="e", phone=ADA)
    assert dental == "I can't find an upcoming appointment for that number."
    listed = {row["key"]: row for row in cli.data("template", "list", salon.id)}
    assert [key for key, row in listed.items() if row["is_own"]] == ["said.no_appointment"]
    cli.data("template", "reset", salon.id, "said.no_appointment")
    assert not cli.data("template", "show", salon.id, "said.no_appointment")["is_own"]
    assert salon.tool(client, "cancel_appointment", call_id="f", phone=ADA).startswith("Ich finde")


def test_what_could_not_be_filled_or_is_not_there_is_refused_and_nothing_changes(cli, people):
    salon = people.salon.id
    for typed, says in (
        (("text.moved", "--text", "Bye {name}"), "there is: {business}, {when}"),
        (("text.moved", "--text", "Bye"), "{when} must not be left out"),
        (("text.nonsense", "--text", "Bye"), "no such template"),
        (("phrase.choice", "--text", "Bye"), "no such template"),
        (("text.moved", "--content-sid", "XX12"), "32 hexadecimal digits"),
        (("said.gone", "--content-sid", SID), "only what is texted to customers"),
        (("text.moved", "--variables", "name"), "business, when"),
        (("text.moved",), "nothing to set"),
    ):
        refused = cli.refusal("template", "set", salon, *typed)
        assert refused["code"] in ("invalid_input", "unknown_template")
        assert says in refused["message"]
    assert not any(row["is_own"] or row["content_sid"] for row in cli.data("template", "list", salon))


def test_an_approved_template_is_named_with_its_variables_and_taken_away(cli, people):
    salon = people.salon.id
    shown = cli.data("template", "set", salon, "text.moved", "--content-sid", SID, "--language", "es")
    assert (shown["content_sid"], shown["variables"]) == (SID, ["business", "when"])
    assert cli.data("template", "show", salon, "text.moved")["content_sid"] is None
    shown = cli.data("template", "set", salon, "text.moved", "--variables", "when", "--language", "es")
    assert shown["variables"] == ["when"]
    shown = cli.data("template", "set", salon, "text.moved", "--content-sid", "", "--language", "es")
    assert (shown["content_sid"], shown["variables"], shown["is_own"]) == (None, None, False)


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--language", "fr", "one of en, es, de"),
        ("--quiet", "late", "two local times"),
        ("--quiet", "08:00-08:00", "another time"),
        ("--notify", "0301234", "E.164"),
    ],
)
def test_what_an_organization_cannot_be_set_to_is_refused(cli, people, option, value, says):
    assert says in cli.refusal("org", "set", people.salon.id, option, value)["message"]


def test_what_is_set_is_shown(cli, people):
    given = ("--language", "es", "--quiet", "20:00-09:30", "--notify", ADA, "--notify-about", "unfinished")
    shown = cli.data("org", "set", people.salon.id, *given, "--no-reminders", "--no-sms-instead")
    assert (shown["language"], shown["quiet_hours"], shown["notify"]) == ("es", ["20:00", "09:30"], ADA)
    assert (shown["notify_about"], shown["reminders"], shown["sms_instead"]) == (["unfinished"], False, False)
    assert cli.data("org", "set", people.salon.id, "--quiet", "")["quiet_hours"] == []
