"""Providers are told by command where to post, and asked whether they still do."""

from __future__ import annotations

import secrets
from typing import Any

import pytest
import requests
from flask import Flask
from sqlalchemy import text

from app.config import Settings
from app.integrations.doors import DOORS
from app.services.credentials import PROVIDERS
from app.services.platform import Platform
from sandbox.standins import RemoteWorld
from tests.command_line import CommandLine, refused
from tests.leaks import plant
from tests.people import Business


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"vapi_private_key": "a-private-key"})


class TestTwilio:
    def one(self, cli: CommandLine, business: Business) -> dict[str, Any]:
        (row,) = [one for one in cli.data("integration", "list", "--org", business.id) if one["provider"] == "twilio"]
        return row

    def test_without_yes_the_changes_are_shown_and_nothing_is_changed(
        self, cli: CommandLine, bakery: Business, world: RemoteWorld
    ) -> None:
        row = self.one(cli, bakery)
        shown = cli.data("integration", "apply", row["id"])
        assert shown["applied"] is False
        assert [one["what"] for one in shown["differences"]] == ["webhook of incoming texts"]
        assert world.twilio_numbers() == {}

    def test_a_number_is_told_where_to_post_and_how_often_to_try_and_then_nothing_differs(
        self, cli: CommandLine, bakery: Business, world: RemoteWorld
    ) -> None:
        row = self.one(cli, bakery)
        assert cli.data("integration", "apply", row["id"], "--yes")["applied"] is True
        (number,) = world.twilio_numbers().values()
        assert number["sms_url"] == row["webhook_url"] + "#rc=3&rp=5xx,ct,rt"
        assert number["sms_method"] == "POST"
        assert cli.data("integration", "check", row["id"]) == []
        changes = len(world.requests("twilio", "update_number"))
        assert cli.data("integration", "apply", row["id"], "--yes") == {
            "integration_id": row["id"],
            "applied": False,
            "differences": [],
        }
        assert len(world.requests("twilio", "update_number")) == changes

    def test_a_messaging_service_is_set_instead_of_its_numbers(
        self, cli: CommandLine, bakery: Business, world: RemoteWorld
    ) -> None:
        service = "MG" + secrets.token_hex(16)
        world.twilio_account(
            bakery.account_sid, bakery.auth_token, [bakery.number], messaging_services={service: [bakery.number]}
        )
        row = self.one(cli, bakery)
        cli.data("integration", "set", row["id"], "--set", f"messaging_service_sid={service}")
        assert len(refused(cli, row["id"])) == 2
        cli.data("integration", "apply", row["id"], "--yes")
        assert world.twilio_numbers()[service] == {
            "inbound_request_url": row["webhook_url"] + "#rc=3&rp=5xx,ct,rt",
            "inbound_method": "POST",
            "status_callback": row["status_url"] + "#rc=3&rp=5xx,ct,rt",
            "use_inbound_webhook_on_number": False,
        }
        assert cli.data("integration", "check", row["id"]) == []

    def test_a_number_of_another_account_and_a_wrong_token_are_told_with_a_fix(
        self, cli: CommandLine, bakery: Business, world: RemoteWorld
    ) -> None:
        row = self.one(cli, bakery)
        world.twilio_account(bakery.account_sid, bakery.auth_token, [])
        (lost,) = refused(cli, row["id"])
        assert (lost["has"], lost["mends"]) == ("not in this account", False)
        world.twilio_account(bakery.account_sid, "another", [bakery.number])
        (away,) = refused(cli, row["id"])
        assert away["fix"] == f"integration set {row['id']} --set key=value"


class TestVapi:
    KEY = "a-private-key"

    @pytest.fixture
    def row(self, cli: CommandLine, bakery: Business, world: RemoteWorld) -> dict[str, Any]:
        world.vapi_key(self.KEY)
        assistant = world.assistant(self.KEY, "Receptionist")
        world.phone_number(self.KEY, bakery.number)
        cli.data("org", "set", bakery.id, "--assistant", assistant["id"])
        (row,) = [one for one in cli.data("integration", "list", "--org", bakery.id) if one["provider"] == "vapi"]
        return row

    def test_credential_tools_assistant_and_number_are_set_at_once_and_then_nothing_differs(
        self, cli: CommandLine, bakery: Business, world: RemoteWorld, row: dict[str, Any]
    ) -> None:
        cli.data("integration", "apply", row["id"], "--yes")
        there = world.vapi_settings()
        (credential,) = there["credentials"]
        assert credential["authenticationPlan"] == {
            "type": "bearer",
            "token": bakery.vapi_secret,
            "headerName": "X-Vapi-Secret",
            "bearerPrefixEnabled": False,
        }
        (assistant,) = there["assistants"]
        assert assistant["server"]["url"] == row["webhook_url"]
        assert assistant["server"]["credentialId"] == credential["id"]
        assert assistant["server"]["backoffPlan"]["maxRetries"] > 0
        named = {tool["id"]: tool["function"]["name"] for tool in there["tools"]}
        assert {named[one] for one in assistant["model"]["toolIds"]} >= {"check_availability", "book_appointment"}
        assert all(tool["server"]["url"] == row["webhook_url"] for tool in there["tools"])
        assert there["phone_numbers"][0]["server"]["credentialId"] == credential["id"]
        assert cli.data("integration", "check", row["id"]) == []
        cli.data("integration", "apply", row["id"], "--yes")
        assert world.vapi_settings() == there

    def test_what_somebody_else_set_at_the_assistant_stays(
        self, cli: CommandLine, world: RemoteWorld, row: dict[str, Any]
    ) -> None:
        (assistant,) = world.vapi_settings()["assistants"]
        url, auth = f"{world.vapi_url}/assistant/{assistant['id']}", {"Authorization": f"Bearer {self.KEY}"}
        theirs = {"model": {"provider": "openai", "model": "gpt-4o"}, "serverMessages": ["hang"]}
        assert requests.patch(url, json=theirs, headers=auth, timeout=10).status_code == 200
        cli.data("integration", "apply", row["id"], "--yes")
        (assistant,) = world.vapi_settings()["assistants"]
        assert assistant["model"]["model"] == "gpt-4o"
        assert assistant["serverMessages"][0] == "hang"
        assert "tool-calls" in assistant["serverMessages"]

    def test_a_new_secret_is_a_difference_and_is_told_to_the_credential_that_is_there(
        self, cli: CommandLine, world: RemoteWorld, row: dict[str, Any]
    ) -> None:
        cli.data("integration", "apply", row["id"], "--yes")
        new = secrets.token_hex(16)
        plant(new)
        cli.data("integration", "set", row["id"], "--set", f"webhook_secret={new}")
        (told,) = refused(cli, row["id"])
        assert told["what"] == "credential"
        cli.data("integration", "apply", row["id"], "--yes")
        (credential,) = world.vapi_settings()["credentials"]
        assert credential["authenticationPlan"]["token"] == new
        assert cli.data("integration", "check", row["id"]) == []

    def test_another_public_address_is_mended_everywhere_without_a_second_tool(
        self, app: Flask, cli: CommandLine, platform: Platform, world: RemoteWorld, row: dict[str, Any]
    ) -> None:
        cli.data("integration", "apply", row["id"], "--yes")
        tools = {one["id"] for one in world.vapi_settings()["tools"]}
        platform.settings = platform.settings.model_copy(update={"public_base_url": "https://moved.test"})
        assert refused(cli, row["id"])
        cli.data("integration", "apply", row["id"], "--yes")
        assert {one["id"] for one in world.vapi_settings()["tools"]} == tools
        assert all(one["server"]["url"].startswith("https://moved.test/") for one in world.vapi_settings()["tools"])
        assert cli.data("integration", "check", row["id"]) == []

    def test_an_assistant_that_vapi_does_not_know_is_told(
        self, cli: CommandLine, bakery: Business, row: dict[str, Any]
    ) -> None:
        cli.data("org", "set", bakery.id, "--assistant", "somebody-elses")
        assert any(one["has"] == "unknown to Vapi" and not one["mends"] for one in refused(cli, row["id"]))

    def test_a_provider_that_is_away_is_a_line_and_keeps_no_other_from_being_looked_at(
        self, cli: CommandLine, world: RemoteWorld, row: dict[str, Any]
    ) -> None:
        world.fault("vapi", "error_500")
        found = refused(cli, "--all")
        assert {one["provider"] for one in found} == {"vapi", "twilio"}
        assert [one["what"] for one in found if one["provider"] == "vapi"] == ["the provider's answer"]


def test_a_connection_of_the_platform_is_compared_for_each_organization_that_has_none_of_its_own(
    cli: CommandLine, platform: Platform, bakery: Business, world: RemoteWorld
) -> None:
    sid, token = "AC" + secrets.token_hex(16), secrets.token_hex(16)
    plant(token)
    world.twilio_account(sid, token, ["+4930777770007"])
    for name, number in (("Riverside Vets", "+4930777770007"), ("Hilltop Yoga", "+4930777770008")):
        org_id = cli.data("org", "create", name, "--timezone", "UTC")["id"]
        cli.data("org", "set", org_id, "--number", number)
    keys = ("--set", f"account_sid={sid}", "--set", f"auth_token={token}")
    row = cli.data("integration", "add", "--platform", "twilio", *keys)
    assert {one["organization"]: one["mends"] for one in refused(cli, row["id"])} == {
        "Riverside Vets": True,
        "Hilltop Yoga": False,
    }
    cli.data("integration", "apply", row["id"], "--yes")
    assert set(world.twilio_numbers()) == {"+4930777770007"}
    assert [one["organization"] for one in refused(cli, row["id"])] == ["Hilltop Yoga"]


def test_what_was_set_is_in_the_trail_without_a_value(cli: CommandLine, platform: Platform, bakery: Business) -> None:
    (row,) = [one for one in cli.data("integration", "list", "--org", bakery.id) if one["provider"] == "twilio"]
    cli.data("integration", "apply", row["id"], "--yes")
    with platform.database.transaction(system=True) as session:
        details = session.execute(
            text("SELECT details FROM operator_actions WHERE action = 'integration.apply'")
        ).scalar_one()
    assert details == {"set": ["webhook of incoming texts"]}


def test_check_wants_one_or_all(cli: CommandLine) -> None:
    assert cli.refusal("integration", "check")["code"] == "invalid_input"


@pytest.mark.parametrize("command", [(), ("add",)])
def test_the_help_names_every_provider_and_front_door_that_is_registered(
    cli: CommandLine, command: tuple[str, ...]
) -> None:
    told = " ".join(cli.run("integration", *command, "--help").stdout.split())
    assert [name for name in PROVIDERS if name not in told] == []
    assert told.index("front doors") < min(told.index(name) for name in DOORS)


def test_the_help_of_adding_names_the_keys_of_each_provider(cli: CommandLine) -> None:
    told = " ".join(cli.run("integration", "add", "--help").stdout.split())
    for name, credentials in PROVIDERS.items():
        assert f"{name}: {', '.join(credentials.model_fields)}" in told
