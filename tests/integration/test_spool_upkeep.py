"""The spool in an operator's hands: seen, taken in, and rid of a person, without a word of what is in it."""

from __future__ import annotations

import json

from app.services import alert_causes, spool_drain, spool_upkeep
from app.services.readiness import house
from tests.spooling import rows, status_update

CUSTOMER = "+4915112345678"


def run(app, *words: str):
    return app.test_cli_runner().invoke(args=[*words, "--json"])


def test_the_commands_say_what_waits_and_take_it_in(met, app, platform, client, away):
    with away():
        met.salon.text(client, CUSTOMER, "Hello there, friends")
        shown = json.loads(run(app, "spool", "list").stdout)
    assert (shown["events"], shown["set_aside"], shown["takes_more"]) == (1, 0, True)
    assert shown["oldest_at"].endswith("Z")
    assert json.loads(run(app, "spool", "drain").stdout) == {
        "stored": 1,
        "duplicates": 0,
        "refused": 0,
        "aside": 0,
        "left": 0,
    }
    assert len(rows(platform, "id")) == 1


def test_draining_while_the_database_is_away_fails_in_words_and_loses_nothing(
    met,
    app,
    platform,
    client,
    away,
):
    with away():
        status_update(met.salon, client, "c1")
        assert run(app, "spool", "drain").exit_code == 1
    assert platform.spool.contents().lines == 1


def test_a_person_can_be_taken_out_of_it_however_the_number_is_written(met, platform, client, away):
    with away():
        met.salon.text(client, CUSTOMER, "Hello there, friends")
        status_update(met.salon, client, "c1", customer={"number": "+49 151 1234-5678"})
        status_update(met.salon, client, "c2", customer={"number": "+4915100000001"})
        met.dental.text(client, CUSTOMER, "Hello there, dentist")
    assert spool_upkeep.erase(platform, [CUSTOMER], org_id=met.salon.id) == 2
    assert spool_upkeep.erase(platform, [CUSTOMER]) == 1
    assert spool_drain.drain(platform).stored == 1
    assert [row[0] for row in rows(platform, "event_key")] == ["status-update:c2:in-progress"]


def test_health_alerts_and_readiness_tell_of_it(met, app, platform, client, away):
    assert list(alert_causes.spool(platform)) == []
    with away():
        status_update(met.salon, client, "c1")
    (cause,) = alert_causes.spool(platform)
    assert (cause.kind, cause.facts["events"]) == ("spool_not_empty", 1)
    report = app.test_client().get("/health/queue").get_json()
    assert report["spool"]["events"] == 1
    assert "events wait in the spool" in report["reasons"]
    assert house.disk(platform).status == "WARN"
    spool_drain.drain(platform)
    assert list(alert_causes.spool(platform)) == []


def test_readiness_knows_a_file_system_that_a_restart_empties(tmp_path, platform, monkeypatch):
    assert house.file_system_of(tmp_path) not in ("", "a disk")
    monkeypatch.setattr(house, "file_system_of", lambda _: "tmpfs")
    outcome = house.disk(platform)
    assert (outcome.status, "tmpfs" in outcome.reason) == ("WARN", True)
