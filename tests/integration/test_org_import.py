"""Organizations moved in from a file, paused, written out and deleted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlalchemy import text

from app.models import belongings
from app.models.ledger import unbalanced
from app.services import ledger, messages, moving_out
from tests.command_line import CommandLine
from tests.leaks import plant_words

SALON = {
    "ref": "crm-1",
    "name": "Mill Lane Salon",
    "timezone": "Europe/Berlin",
    "number": "+49 30 5555 0001",
    "assistant": "asst-mill",
    "hours": {"mon": [["09:00", "17:00"]]},
    "slot": 45,
}
GARAGE = {"ref": "crm-2", "name": "Hill Garage", "timezone": "America/New_York", "number": "+12025550123"}


@pytest.fixture
def take_in(cli: CommandLine, tmp_path: Path):
    def run(rows, *words: str, exit_code: int = 0):
        file = tmp_path / "organizations"
        file.write_text(rows if isinstance(rows, str) else json.dumps(rows), encoding="utf-8")
        done = cli.run("org", "import", file, *words, "--json")
        assert done.exit_code == exit_code, done.output
        return json.loads(done.stdout)

    return run


def results(done) -> list[str]:
    return [row["result"] for row in done]


def test_a_file_is_safe_to_take_in_twice_and_says_what_it_changed(cli, take_in):
    assert results(take_in([SALON, GARAGE])) == ["created", "created"]
    assert results(take_in([SALON, GARAGE])) == ["same", "same"]
    done = take_in({"organizations": [{**SALON, "slot": 60, "name": "Mill Lane Hair"}, GARAGE]})
    assert results(done) == ["changed", "same"]
    assert done[0]["changed"] == ["name", "slot_minutes"]
    shown = cli.data("org", "show", done[0]["id"])
    assert (shown["name"], shown["slot"], shown["number"]) == ("Mill Lane Hair", 60, "+493055550001")
    assert shown["routing"] == {"phone_number": "+493055550001", "vapi_assistant": "asst-mill"}
    assert len(cli.data("org", "list")) == 2


def test_a_dry_run_changes_nothing_and_sees_rows_that_collide(cli, take_in):
    done = take_in([SALON, {**GARAGE, "number": SALON["number"]}], "--dry-run", exit_code=1)
    assert results(done) == ["created", "failed"]
    assert done[0]["id"] is None
    assert done[1]["errors"][0].startswith("number: ")
    assert cli.data("org", "list") == []


def test_a_faulty_row_is_named_with_each_field_and_holds_up_no_other(cli, take_in):
    wrong = {**SALON, "timezone": "Mars/Olympus", "slot": "long", "colour": "red"}
    done = take_in([wrong, GARAGE], exit_code=1)
    assert results(done) == ["failed", "created"]
    assert sorted(fault.partition(":")[0] for fault in done[0]["errors"]) == ["colour", "slot", "timezone"]
    assert [row["name"] for row in cli.data("org", "list")] == ["Hill Garage"]


def test_an_organization_is_taken_whole_or_not_at_all(cli, take_in):
    take_in([SALON, GARAGE])
    done = take_in([{**GARAGE, "slot": 90, "number": SALON["number"]}], exit_code=1)
    assert results(done) == ["failed"]
    garage = next(one for one in cli.data("org", "list") if one["name"] == "Hill Garage")
    assert cli.data("org", "show", garage["id"])["slot"] == 30
    assert garage["number"] == "+12025550123"


def test_a_table_does_as_well_and_its_empty_cells_change_nothing(cli, take_in):
    hours = '"{""mon"": [[""09:00"", ""12:00""]]}"'
    row = f"crm-1,Mill Lane Salon,Europe/Berlin,+493055550001,{hours},20"
    table = f"ref,name,timezone,number,hours,slot\n{row}\n"
    (made,) = take_in(table)
    assert made["result"] == "created"
    assert results(take_in("ref,name,timezone,slot\ncrm-1,Mill Lane Salon,,\n")) == ["same"]
    shown = cli.data("org", "show", made["id"])
    assert (shown["hours"], shown["slot"]) == ({"mon": [["09:00", "12:00"]]}, 20)


def test_a_file_that_is_no_list_is_refused(cli, tmp_path):
    file = tmp_path / "wrong.json"
    file.write_text('{"organizations": 3}')
    assert "no list" in cli.refusal("org", "import", file)["message"]
    file.write_text("[{")
    assert "not JSON" in cli.refusal("org", "import", file)["message"]


def ended(name: str) -> dict:
    return {"type": "status-update", "status": "ended", "call": {"id": name}}


def test_suspended_it_keeps_what_comes_in_sends_nothing_and_goes_on_where_it_stopped(
    platform, people, world, client, cli, settle
):
    salon = people.salon
    cli.data("org", "suspend", salon.id)
    assert salon.vapi(client, ended("c1")).status_code == 200
    said = salon.vapi(client, {"type": "assistant-request", "call": {"id": "c2"}}).get_json()
    assert said["error"].startswith("You have reached North Street Salon.")
    with platform.database.transaction(salon.id) as session:
        plan = {"body": "See you.", "channel": "sms", "idempotency_key": "k", "purpose": "reply"}
        messages.plan_text(session, salon.id, to="+4915112345678", **plan)
    settle(lambda: all(row["status"] != "received" for row in cli.data("deliveries", "list", "--org", salon.id)))
    waiting = [row for row in cli.data("deliveries", "list", "--org", salon.id) if row["status"] == "retrying"]
    assert {row["waiting_on"] for row in waiting} == {f"suspended:{salon.id}"}
    assert len(waiting) == 2
    assert [row["attempts"] for row in waiting] == [0, 0]
    assert cli.data("calls", "list", "--org", salon.id) == []

    assert cli.data("org", "resume", salon.id)["woken"] == 2
    settle(lambda: cli.data("messages", "list", "--org", salon.id)[0]["sid"])
    settle(lambda: len(cli.data("calls", "list", "--org", salon.id)) == 1)
    assert ledger.check(platform).difference == 0


def test_an_export_holds_all_of_it_and_nobody_elses_and_no_secret(platform, people, client, cli, settle, tmp_path):
    for business in (people.salon, people.dental):
        business.vapi(client, ended(f"call-of-{business.name.split()[0]}"))
    settle(lambda: all(len(cli.data("calls", "list", "--org", one.id)) == 1 for one in (people.salon, people.dental)))
    file = tmp_path / "salon.jsonl"
    done = cli.data("org", "export", people.salon.id, "--out", file)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    plant_words(lines)
    assert done["rows"]["calls"] == 1
    assert {"organizations", "integrations", "webhook_delivery_log", "webhook_payloads"} <= {
        line["table"] for line in lines
    }
    assert {line["row"]["org_id"] for line in lines if line["table"] != "organizations"} == {str(people.salon.id)}
    written = file.read_text()
    assert "call-of-Harbour" not in written
    for secret in (people.salon.vapi_token, people.salon.auth_token, "credentials"):
        assert secret not in written.replace("credentials_refused", "")
    assert file.stat().st_mode & 0o077 == 0
    assert "there already" in cli.refusal("org", "export", people.salon.id, "--out", file)["message"]


def test_deleted_nothing_of_it_is_left_and_the_books_say_what_was_erased(platform, people, client, cli, settle):
    salon = people.salon
    salon.vapi(client, ended("done"))
    settle(lambda: len(cli.data("calls", "list", "--org", salon.id)) == 1)
    people.dental.vapi(client, ended("theirs"))
    salon.vapi(client, ended("waits"))
    assert "--yes" in cli.refusal("org", "delete", salon.id)["message"]
    done = moving_out.delete(platform, salon.id, actor="test", settle_seconds=0)
    assert done["erased"] == 1
    with platform.database.transaction(system=True) as session:
        for table in belongings.tables():
            left = session.execute(
                text(f"SELECT count(*) FROM {table.name} WHERE org_id = :org"), {"org": salon.id}
            ).scalar()
            assert left == 0 or table.name == "ledger_entries", table.name
        assert unbalanced(session) == []
    assert cli.refusal("org", "show", salon.id)["code"] == "not_found"
    assert salon.vapi(client, ended("late")).status_code == 404
    assert ledger.check(platform).difference == 0
    settle(lambda: len(cli.data("calls", "list", "--org", people.dental.id)) == 1)


def test_whatever_has_an_organization_can_be_deleted_with_it(platform):
    with platform.database.engine.connect() as connection:
        for table in belongings.tables():
            may = connection.execute(
                text("SELECT has_table_privilege('voicedesk_system', :table, 'DELETE')"), {"table": table.name}
            ).scalar()
            assert may, table.name
