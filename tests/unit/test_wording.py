"""What is said, by language: the same sentences everywhere, every placeholder filled, times as people read them."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from app.errors import ConfigurationError, InvalidInput
from app.services.catalogue import CATALOGUE, FOLDER, LANGUAGES, load
from app.services.reminders import due_at, quiet_until
from app.services.slots import clocks_show, midnight
from app.services.wording import Refused, Wording

BERLIN = ZoneInfo("Europe/Berlin")
QUIET = ["21:00", "08:00"]
APP = Path(__file__).resolve().parents[2] / "app"


def wording(language: str = "en", zone: str = "Europe/Berlin", **own: object) -> Wording:
    return Wording(language, ZoneInfo(zone), "North Street Salon", {language: own})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("language", "said"),
    [
        ("en", "Tuesday 1 December at 15:00"),
        ("es", "martes 1 de diciembre a las 15:00"),
        ("de", "Dienstag, 1. Dezember um 15:00 Uhr"),
    ],
)
def test_a_time_is_said_as_the_language_says_it(language: str, said: str) -> None:
    assert wording(language).time(datetime(2026, 12, 1, 14, tzinfo=UTC)) == said


@pytest.mark.parametrize(
    ("zone", "first", "later"),
    [
        ("Europe/Berlin", "2026-10-25T00:30", "at 02:30 (CEST)|at 02:30 (CET)"),
        ("America/New_York", "2026-11-01T05:30", "at 01:30 (EDT)|at 01:30 (EST)"),
        ("Australia/Lord_Howe", "2026-04-04T14:45", "at 01:45 (UTC+11:00)|at 01:45 (UTC+10:30)"),
    ],
)
def test_a_time_that_the_clocks_show_twice_is_told_apart_by_its_zone(zone: str, first: str, later: str) -> None:
    moment = datetime.fromisoformat(first).replace(tzinfo=UTC)
    step = timedelta(minutes=30) if zone.endswith("Howe") else timedelta(hours=1)
    for one, expected in zip((moment, moment + step), later.split("|"), strict=True):
        assert wording(zone=zone).time(one).endswith(expected)
    assert "(" not in wording(zone=zone).time(moment + timedelta(hours=4))


@pytest.mark.parametrize(("language", "said"), [("en", "36 hours"), ("es", "36 horas"), ("de", "36 Stunden")])
def test_a_length_of_time_is_said_in_its_largest_whole_unit(language: str, said: str) -> None:
    assert wording(language).length(timedelta(hours=36)) == said
    assert wording(language).length(timedelta(minutes=90)).startswith("90 ")
    assert wording(language).length(timedelta(days=2)).startswith("2 ")


def test_every_sentence_is_used_somewhere_and_no_other_is_asked_for() -> None:
    code = "\n".join(path.read_text(encoding="utf-8") for path in APP.rglob("*.py"))
    named = set(re.findall(r"[\"']((?:text|said|notice|refused|phrase|time)\.[a-z_]+)[\"']", code))
    bare = set(re.findall(r"[\"']([a-z_]+)[\"']", code))  # of notices, refusals, error codes, days and what was done
    made = {key for key in CATALOGUE.placeholders if key.startswith(("notice.", "refused.", "phrase.on_"))}
    made |= {"text.which_to_cancel", "text.which_to_move"}
    made |= {f"said.{done}{how}" for done in ("booked", "moved") for how in ("", "_no_text")}
    assert [key for key in CATALOGUE.placeholders if key not in named | made] == []
    assert [
        key for key in made - named if key.startswith(("notice.", "refused.")) and key.partition(".")[2] not in bare
    ] == []
    assert named <= set(CATALOGUE.placeholders)


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_sentence_keeps_a_brace_or_is_the_english_one_by_mistake(language: str) -> None:
    words = wording(language)
    for key, placeholders in CATALOGUE.placeholders.items():
        if key.startswith("time."):
            continue
        said = words.say(key, **{name: f"<{name}>" for name in placeholders if name != "business"})
        assert not re.search(r"[{}]|None", said), key
        assert all(f"<{name}>" in said for name in placeholders if name != "business"), key
        if language != "en" and not key.startswith("phrase."):
            assert said != wording().say(key, **{name: f"<{name}>" for name in placeholders if name != "business"}), key


@pytest.mark.parametrize(
    ("key", "text", "says"),
    [
        ("text.moved", "See you {then}", "unknown"),
        ("text.moved", "See you soon", "{when} must not be left out"),
        ("text.moved", "See you {when!r}", "plain name"),
        ("text.moved", "See you {when.year}", "plain name"),
        ("text.moved", "See you {", "brace"),
        ("text.moved", "  ", "characters"),
        ("time.moment", "EEEE QQQQQQQQ zzzzzzzzz", "pattern"),
    ],
)
def test_a_template_that_could_not_be_filled_is_refused(key: str, text: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape(says)):
        CATALOGUE.check(key, text)


def test_an_organizations_own_words_and_its_own_clock_are_used() -> None:
    own = {"text.moved": {"text": "New time: {when}"}, "time.moment": {"text": "EEE d MMM, h:mm a"}}
    said = wording(**own).text("text.moved", when=datetime(2026, 12, 1, 14, tzinfo=UTC))
    assert said.body.replace("\u202f", " ") == "New time: Tue 1 Dec, 3:00 PM"


def test_files_that_are_not_alike_stop_the_start(tmp_path: Path) -> None:
    for name, spoilt in (("de.toml", "{when}"), ("es.toml", "moved = ")):
        for language in LANGUAGES:
            shipped = (FOLDER / f"{language}.toml").read_text(encoding="utf-8")
            if name == f"{language}.toml":
                shipped = shipped.replace(spoilt, "other = " if spoilt.endswith("= ") else "{then}", 1)
            (tmp_path / f"{language}.toml").write_text(shipped, encoding="utf-8")
        with pytest.raises(ConfigurationError, match="differ|placeholders"):
            load(tmp_path)


def test_a_refusal_is_english_for_a_program_and_in_the_organizations_language_for_a_caller() -> None:
    error = Refused("too_soon", code="too_soon", notice=timedelta(hours=2))
    assert str(error) == "that is too soon: we need 2 hours of notice"
    assert wording("de").reason(error) == "das ist zu kurzfristig: wir brauchen 2 Stunden Vorlauf"
    known = InvalidInput("the phone number is not complete", code="phone_incomplete")
    assert wording("es").reason(known) == "el número de teléfono no está completo"
    assert wording("es").reason(InvalidInput("something else")) == "something else"


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])
def test_a_reminder_is_due_at_the_same_reading_of_the_clock_the_day_before_also_when_clocks_change(zone: str) -> None:
    here = ZoneInfo(zone)
    for day in _changes(here):
        for around in (day, day + timedelta(days=1)):
            starts = clocks_show(datetime.combine(around, time(14, 30)), here)
            due = due_at(starts, here, QUIET)
            assert due.astimezone(here).replace(tzinfo=None) == datetime.combine(
                around - timedelta(days=1), time(14, 30)
            )
        lengths = {starts - due_at(starts, here, QUIET) for starts in _noons(day, here)}
        assert timedelta(days=1) in lengths
        assert len(lengths) == 2  # the one across the change is an hour, or half of one, longer or shorter


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])
def test_a_reminder_on_a_skipped_reading_of_the_clock_comes_once_when_the_clocks_are_moved(zone: str) -> None:
    here = ZoneInfo(zone)
    for day in _changes(here):
        starts = clocks_show(datetime.combine(day + timedelta(days=1), time(2, 15)), here)
        due = due_at(starts, here, [])
        assert due.astimezone(here).date() == day
        assert due == clocks_show(datetime.combine(day, time(2, 15)), here)


@pytest.mark.parametrize(
    ("starts", "due"),
    [("14:00", "14:00"), ("07:00", "08:00"), ("08:00", "08:00"), ("22:00", "20:30"), ("20:59", "20:59")],
)
def test_in_quiet_hours_the_reminder_comes_after_them_or_else_before_them_and_always_the_day_before(
    starts: str, due: str
) -> None:
    at = datetime.combine(date(2026, 12, 2), time.fromisoformat(starts), tzinfo=BERLIN)
    found = due_at(at, BERLIN, QUIET).astimezone(BERLIN)
    assert (found.date(), f"{found:%H:%M}") == (date(2026, 12, 1), due)
    assert quiet_until(found, BERLIN, QUIET) is None


def _changes(zone: ZoneInfo) -> list[date]:
    """The days of 2027 on which the clocks go forward and back."""
    days = (date(2027, 1, 1) + timedelta(days=number) for number in range(365))
    return [day for day in days if midnight(day + timedelta(days=1), zone) - midnight(day, zone) != timedelta(days=1)]


def _noons(day: date, zone: ZoneInfo) -> list[datetime]:
    return [clocks_show(datetime.combine(day + timedelta(days=number), time(12)), zone) for number in (-1, 0, 1, 2)]
