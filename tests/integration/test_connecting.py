"""Real accounts are connected by command: a consent that is good once, and providers told where to post."""

from __future__ import annotations

import json
import secrets
import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text

from app import create_app
from app.config import Settings
from app.integrations.doors import DOORS
from app.services.credentials import PROVIDERS
from app.services.platform import Platform
from sandbox.standins import RemoteWorld
from tests.command_line import CommandLine
from tests.leaks import plant
from tests.people import Business, People, open_business

CLIENT_ID = "voicedesk.apps.googleusercontent.com"
CALLBACK = "https://voicedesk.test/connect/google/callback"


@pytest.fixture
def client_secret() -> str:
    made = secrets.token_hex(16)
    plant(made)
    return made


@pytest.fixture
def settings(settings: Settings, world: RemoteWorld, client_secret: str) -> Settings:
    world.google_oauth_client(CLIENT_ID, client_secret, [CALLBACK])
    world.google_person("owner@example.com")
    more = {"google_client_id": CLIENT_ID, "google_client_secret": client_secret, "vapi_private_key": "a-private-key"}
    return settings.model_copy(update=more)


@pytest.fixture
def cli(app: Flask) -> CommandLine:
    return CommandLine(app)


@pytest.fixture
def bakery(platform: Platform, world: RemoteWorld) -> Business:
    return open_business(platform, world, "Corner Bakery", "+4930333330003", google=False)


def consent(link: str) -> str:
    """What the browser is sent to after a click at Google, without its host."""
    answer = requests.get(link, allow_redirects=False, timeout=10)
    assert answer.status_code == 302, answer.text
    went_to = urlsplit(answer.headers["Location"])
    assert f"{went_to.scheme}://{went_to.netloc}{went_to.path}" == CALLBACK
    return f"{went_to.path}?{went_to.query}"


def google_of(cli: CommandLine, org_id: Any) -> list[dict[str, Any]]:
    found = cli.data("integration", "list", "--org", org_id)
    return [one for one in found if one["provider"] == "google-calendar"]


class TestConsent:
    def test_a_link_leads_through_googles_page_to_a_calendar_that_can_be_asked(
        self, cli: CommandLine, client: FlaskClient, platform: Platform, bakery: Business, world: RemoteWorld
    ) -> None:
        world.calendar("bakery@group.calendar.google.com")
        made = cli.data("integration", "connect", "google", bakery.id, "--calendar", "bakery@group.calendar.google.com")
        answer = client.get(consent(made["link"]))
        assert answer.status_code == 200
        assert "Connected" in answer.text
        (row,) = google_of(cli, bakery.id)
        assert {"calendar_id", "client_id", "client_secret", "refresh_token"} <= set(row["keys"])
        assert cli.data("integration", "check", row["id"]) == []

    def test_the_refresh_token_is_kept_encrypted_and_shown_nowhere(
        self, cli: CommandLine, client: FlaskClient, platform: Platform, bakery: Business, world: RemoteWorld
    ) -> None:
        answer = client.get(consent(cli.data("integration", "connect", "google", bakery.id)["link"]))
        token = platform.directory.integration(bakery.id, "google-calendar").credentials.refresh_token
        plant(token.get_secret_value())
        with platform.database.transaction(system=True) as session:
            kept = session.execute(text("SELECT credentials FROM integrations")).scalars().all()
        assert all(token.get_secret_value().encode() not in bytes(one) for one in kept)
        assert token.get_secret_value() not in answer.text
        assert answer.headers["Cache-Control"] == "no-store"

    def test_a_link_works_once(self, cli: CommandLine, client: FlaskClient, bakery: Business) -> None:
        link = cli.data("integration", "connect", "google", bakery.id)["link"]
        assert client.get(consent(link)).status_code == 200
        again = client.get(consent(link))
        assert again.status_code == 400
        assert "used already" in again.text
        assert len(google_of(cli, bakery.id)) == 1

    def test_the_link_is_proof_by_pkce_and_tells_nobody_the_verifier(self, cli: CommandLine, bakery: Business) -> None:
        asked = parse_qs(urlsplit(cli.data("integration", "connect", "google", bakery.id)["link"]).query)
        assert asked["code_challenge_method"] == ["S256"]
        assert len(asked["code_challenge"][0]) == 43
        assert asked["access_type"] == ["offline"]
        assert str(bakery.id) not in asked["state"][0]

    @pytest.mark.parametrize("spoil", [lambda state: state[:-2] + "AA", lambda state: "", lambda state: "x" * 5000])
    def test_a_state_that_is_not_ours_is_refused_before_google_is_asked(
        self, cli: CommandLine, client: FlaskClient, bakery: Business, world: RemoteWorld, spoil: Any
    ) -> None:
        asked = parse_qs(urlsplit(consent(cli.data("integration", "connect", "google", bakery.id)["link"])).query)
        answer = client.get(
            "/connect/google/callback", query_string={"state": spoil(asked["state"][0]), "code": asked["code"][0]}
        )
        assert answer.status_code == 400
        assert world.requests("google", "issue_token") == []

    def test_a_link_is_too_old_after_half_an_hour(
        self, cli: CommandLine, client: FlaskClient, bakery: Business, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = consent(cli.data("integration", "connect", "google", bakery.id)["link"])
        now = time.time()
        monkeypatch.setattr("cryptography.fernet.time.time", lambda: now + 1801)
        answer = client.get(path)
        assert answer.status_code == 400
        assert "too old" in answer.text

    def test_who_refuses_or_leaves_out_a_permission_is_told_and_nothing_is_kept(
        self, cli: CommandLine, client: FlaskClient, bakery: Business, world: RemoteWorld
    ) -> None:
        link = cli.data("integration", "connect", "google", bakery.id)["link"]
        world.google_person("owner@example.com", refuses=True)
        assert "did not consent" in client.get(consent(link)).text
        world.google_person("owner@example.com", scope="https://www.googleapis.com/auth/calendar.freebusy")
        left_out = client.get(consent(link))
        assert left_out.status_code == 502
        assert "tick every permission" in left_out.text
        assert google_of(cli, bakery.id) == []
        world.google_person("owner@example.com")
        assert client.get(consent(link)).status_code == 200

    def test_while_google_is_away_the_link_stays_good(
        self, cli: CommandLine, client: FlaskClient, bakery: Business, world: RemoteWorld
    ) -> None:
        link = cli.data("integration", "connect", "google", bakery.id)["link"]
        path = consent(link)
        world.fault("google", "error_500", operation="issue_token", times=1)
        assert client.get(path).status_code == 503
        assert client.get(consent(link)).status_code == 200

    def test_a_withdrawn_consent_is_mended_by_a_new_one_in_the_same_connection(
        self, cli: CommandLine, client: FlaskClient, people: People, world: RemoteWorld, client_secret: str
    ) -> None:
        salon = people.salon
        (row,) = google_of(cli, salon.id)
        world.revoke(email="owner@example.com")
        (broken,) = refused(cli, row["id"])
        assert broken["fix"] == f"integration connect google {salon.id}"
        own = salon.platform.directory.integration(salon.id, "google-calendar").credentials
        world.google_oauth_client(own.client_id, own.client_secret.get_secret_value(), [CALLBACK])
        assert client.get(consent(cli.data("integration", "connect", "google", salon.id)["link"])).status_code == 200
        assert [one["id"] for one in google_of(cli, salon.id)] == [row["id"]]
        assert cli.data("integration", "check", row["id"]) == []

    def test_a_consent_takes_the_place_of_a_service_account(
        self, cli: CommandLine, client: FlaskClient, bakery: Business, world: RemoteWorld
    ) -> None:
        key = json.dumps(world.service_account())
        world.calendar("bakery@group.calendar.google.com")
        made = cli.data(
            *("integration", "add", bakery.id, "google-calendar"),
            *("--set", f"service_account_json={key}", "--set", "calendar_id=bakery@group.calendar.google.com"),
        )
        assert cli.data("integration", "check", made["id"]) == []
        assert client.get(consent(cli.data("integration", "connect", "google", bakery.id)["link"])).status_code == 200
        (row,) = google_of(cli, bakery.id)
        assert "service_account_json" not in row["keys"]
        assert cli.data("integration", "check", made["id"]) == []


def refused(cli: CommandLine, *typed: Any) -> list[dict[str, Any]]:
    """What `integration check` finds when it finds something: exit code 1 and the list."""
    result = cli.run("integration", "check", *typed, "--json")
    assert result.exit_code == 1, result.stdout
    found: list[dict[str, Any]] = json.loads(result.stdout)
    return found


def test_without_an_oauth_client_the_command_says_which_settings_it_needs(platform: Platform, bakery: Business) -> None:
    bare = create_app(platform.settings.model_copy(update={"google_client_id": None}))
    error = CommandLine(bare).refusal("integration", "connect", "google", bakery.id)
    bare.extensions["platform"].close()
    assert "GOOGLE_CLIENT_ID" in error["message"]


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
