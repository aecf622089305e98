"""Commands about the house: its tools, its roles, its keys, and the process for a delivery that may kill one."""

from __future__ import annotations

import json
from dataclasses import replace
from uuid import UUID

import psutil
import pytest
from cryptography.fernet import Fernet
from flask import Flask
from flask.testing import FlaskClient

from app import create_app
from app.models.lanes import FIRST_ORG, ClaimedLane, claim_lanes
from app.services.isolation import Alone, end_all, run_isolated
from app.services.platform import Platform
from sandbox.children import await_gone
from sandbox.ports import free_port
from tests.command_line import CommandLine
from tests.conftest import Urls, make_settings
from tests.eventually import eventually
from tests.people import People

TOOLS = ["check_availability", "book_appointment", "reschedule_appointment", "cancel_appointment", "send_text"]


@pytest.fixture
def lane(app: Flask, people: People, platform: Platform) -> ClaimedLane:
    """A lane with one event in it, claimed by this process."""
    client: FlaskClient = app.test_client()
    people.salon.vapi(client, {"type": "status-update", "status": "ended", "call": {"id": "call-1"}})
    with platform.database.transaction(system=True) as session:
        (lane,) = claim_lanes(session, after=FIRST_ORG, most=1, per_org=1, lease_seconds=30, full=[]).lanes
    return lane


def test_tools_are_printed_in_vapis_format_with_and_without_json(cli: CommandLine) -> None:
    printed = cli.data("tools", "--server-url", "https://voicedesk.test/webhooks/vapi/t")
    assert [tool["function"]["name"] for tool in printed] == TOOLS
    for tool in printed:
        assert tool["type"] == "function"
        assert tool["server"]["url"] == "https://voicedesk.test/webhooks/vapi/t"
        assert set(tool["function"]["parameters"]["required"]) <= set(tool["function"]["parameters"]["properties"])
    assert "server" not in json.loads(cli.run("tools").stdout)[0]


def test_a_new_key_is_a_key(cli: CommandLine) -> None:
    assert Fernet(cli.run("new-key").stdout.strip())
    assert Fernet(cli.data("new-key")["key"])


def test_making_roles_again_does_nothing(cli: CommandLine) -> None:
    assert cli.data("db-roles") == {"done": []}


def test_a_database_that_is_away_is_an_error_without_a_traceback_or_a_password(database_urls: Urls) -> None:
    away = f"postgresql://somebody:hush-hush@127.0.0.1:{free_port()}/nowhere"
    app = create_app(make_settings(Urls(away, away, "nowhere")))
    cli = CommandLine(app)
    assert cli.refusal("org", "list")["code"] == "database_unavailable"
    plain = cli.run("deliveries", "list")
    assert (plain.exit_code, plain.stdout, plain.stderr) == (1, "", "Error: the database is away\n")
    refused = cli.refusal("db-roles")
    assert refused["code"] == "configuration"
    assert "hush-hush" not in refused["message"]
    app.extensions["platform"].close()


def test_an_attempt_in_a_process_of_its_own_finishes_the_delivery(
    cli: CommandLine, lane: ClaimedLane, platform: Platform
) -> None:
    assert run_isolated(platform.settings, lane, lane.deliveries[0].id) is Alone.FINISHED
    (done,) = cli.data("deliveries", "list")
    assert (done["status"], done["attempts"]) == ("processed", 1)


def test_an_attempt_for_a_lane_that_has_passed_on_does_nothing(
    cli: CommandLine, lane: ClaimedLane, platform: Platform
) -> None:
    delivery_id = lane.deliveries[0].id
    for elses in (replace(lane, token=lane.token + 1), replace(lane, org_id=UUID(int=7))):
        assert run_isolated(platform.settings, elses, delivery_id) is Alone.NOT_FINISHED
    (waiting,) = cli.data("deliveries", "list")
    assert (waiting["status"], waiting["attempts"]) == ("received", 0)


def test_an_attempt_at_what_is_finished_does_nothing(lane: ClaimedLane, platform: Platform) -> None:
    delivery_id = lane.deliveries[0].id
    assert run_isolated(platform.settings, lane, delivery_id) is Alone.FINISHED
    assert run_isolated(platform.settings, lane, delivery_id) is Alone.NOT_FINISHED


def nurseries() -> list[psutil.Process]:
    living = [one for one in psutil.Process().children() if one.status() != psutil.STATUS_ZOMBIE]
    return [one for one in living if "deliver-isolated" in one.cmdline()]


def test_the_process_that_forks_shares_neither_thread_nor_connection_and_ends_with_whoever_asked(
    lane: ClaimedLane, platform: Platform
) -> None:
    assert run_isolated(platform.settings, lane, lane.deliveries[0].id) is Alone.FINISHED
    eventually(lambda: len(nurseries()) == 1)  # an earlier test's, made for other settings, is on its way out
    (nursery,) = nurseries()
    assert nursery.num_threads() == 1
    assert [link for link in nursery.net_connections() if link.status == psutil.CONN_ESTABLISHED] == []
    end_all()
    assert await_gone([nursery], seconds=5)
    assert run_isolated(platform.settings, lane, lane.deliveries[0].id) is Alone.NOT_FINISHED  # by a new one
