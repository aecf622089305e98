"""Setting up organizations and their connections by hand."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select

from app.errors import UnknownEndpoint
from app.integrations.vapi import VapiCredentials
from app.models import ApiKey, Integration, OperatorAction
from app.services.platform import Platform
from tests.command_line import CommandLine

TWILIO = {"account_sid": "AC" + "5e" * 16, "auth_token": "a-very-secret-token", "from_number": "+4930111110001"}


@pytest.fixture
def salon(cli: CommandLine) -> str:
    made: str = cli.data("org", "create", "North Street Salon", "--timezone", "Europe/Berlin")["id"]
    return made


def settings_of(given: dict[str, str]) -> list[str]:
    return [word for key, value in given.items() for word in ("--set", f"{key}={value}")]


def test_an_organization_gets_an_id_and_a_key_of_which_only_the_hash_is_kept(
    cli: CommandLine, platform: Platform
) -> None:
    made = cli.data("org", "create", "North Street Salon", "--timezone", "Europe/Berlin")
    assert set(made) == {"id", "name", "api_key"}
    assert made["name"] == "North Street Salon"
    assert made["api_key"].startswith("vd_")
    assert len(made["api_key"]) == 35
    with platform.database.transaction(system=True) as session:
        stored = session.scalars(select(ApiKey).where(ApiKey.org_id == UUID(made["id"]))).one()
    assert stored.key_hash == hashlib.sha256(made["api_key"].encode()).hexdigest()
    assert stored.prefix == made["api_key"][:11]


def test_two_organizations_may_have_the_same_name(cli: CommandLine) -> None:
    first, second = (cli.data("org", "create", "Salon", "--timezone", "UTC") for _ in range(2))
    assert first["id"] != second["id"]
    assert [org["name"] for org in cli.data("org", "list")] == ["Salon", "Salon"]


@pytest.mark.parametrize("timezone", ["Mars/Olympus", "", "../etc/passwd", "Europe/"])
def test_a_time_zone_that_does_not_exist_is_refused_and_nothing_is_made(cli: CommandLine, timezone: str) -> None:
    assert cli.refusal("org", "create", "Salon", "--timezone", timezone)["code"] == "invalid_input"
    assert cli.data("org", "list") == []


def test_without_json_an_error_is_one_sentence_on_stderr(cli: CommandLine) -> None:
    result = cli.run("org", "create", "Salon", "--timezone", "Mars/Olympus")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: timezone: an IANA name is needed, such as Europe/Berlin\n"


def test_wrong_usage_is_exit_code_two_in_both_forms(cli: CommandLine) -> None:
    assert cli.run("org", "create", "Salon").exit_code == 2
    assert "--timezone" in cli.refusal("org", "create", "Salon", exit_code=2)["message"]
    assert cli.refusal("org", "show", "not-an-id", exit_code=2)["code"] == "usage"


def test_what_is_set_is_shown_and_the_rest_stays(cli: CommandLine, salon: str) -> None:
    hours = {"sat": [["10:00", "14:00"]], "mon": [["13:00", "18:00"], ["09:00", "12:00"]]}
    cli.data("org", "set", salon, "--hours", "-", "--slot", 45, stdin=json.dumps(hours))
    cli.data(
        "org", "set", salon, "--number", "+49 30 11111 0001", "--assistant", "asst-1", "--transfer", "+4930222220002"
    )
    shown = cli.data("org", "show", salon)
    assert shown["hours"] == {"sat": [["10:00", "14:00"]], "mon": [["09:00", "12:00"], ["13:00", "18:00"]]}
    assert (shown["slot"], shown["number"], shown["transfer"]) == (45, "+4930111110001", "+4930222220002")
    assert (shown["assistant"], shown["timezone"]) == ("asst-1", "Europe/Berlin")


def test_an_empty_number_takes_it_away(cli: CommandLine, salon: str) -> None:
    cli.data("org", "set", salon, "--transfer", "+4930111110001")
    assert cli.data("org", "set", salon, "--transfer", "")["transfer"] is None


def test_opening_hours_that_are_wrong_are_refused_by_the_name_of_the_day(
    cli: CommandLine, salon: str, tmp_path: Path
) -> None:
    file = tmp_path / "hours.json"
    file.write_text('{"tue": [["17:00", "09:00"]]}')
    assert "tue" in cli.refusal("org", "set", salon, "--hours", file)["message"]
    file.write_text("closed")
    assert cli.refusal("org", "set", salon, "--hours", file)["message"] == "hours: the file is not JSON"
    assert "mon" in cli.data("org", "show", salon)["hours"]


@pytest.mark.parametrize("wrong", [("--slot", "0"), ("--number", "12"), ("--timezone", "Mars/Olympus"), ()])
def test_a_value_that_makes_no_sense_changes_nothing(cli: CommandLine, salon: str, wrong: tuple[str, ...]) -> None:
    before = cli.data("org", "show", salon)
    assert cli.refusal("org", "set", salon, *wrong)["code"] == "invalid_input"
    assert cli.data("org", "show", salon) == before


def test_an_organization_nobody_knows_is_not_found(cli: CommandLine) -> None:
    nobody = uuid4()
    assert cli.refusal("org", "show", nobody)["code"] == "not_found"
    assert cli.refusal("org", "set", nobody, "--slot", "30")["code"] == "not_found"
    assert cli.refusal("integration", "add", nobody, "vapi", "--set", "webhook_secret=x")["code"] == "not_found"
    assert cli.refusal("integration", "list", "--org", nobody)["code"] == "not_found"


def test_a_connection_gets_a_token_and_the_urls_to_post_to(cli: CommandLine, salon: str) -> None:
    vapi = cli.data("integration", "add", salon, "vapi", "--set", "webhook_secret=shhh")
    assert set(vapi) == {"id", "token", "webhook_url"}
    assert vapi["webhook_url"] == f"https://voicedesk.test/webhooks/vapi/{vapi['token']}"
    twilio = cli.data("integration", "add", salon, "twilio", *settings_of(TWILIO))
    assert twilio["status_url"] == f"https://voicedesk.test/webhooks/twilio/{twilio['token']}/status"


def test_a_secret_goes_in_and_never_comes_out(cli: CommandLine, salon: str, platform: Platform) -> None:
    cli.data("integration", "add", salon, "twilio", *settings_of(TWILIO))
    for command in (("integration", "list"), ("integration", "list", "--json"), ("org", "show", salon, "--json")):
        assert TWILIO["auth_token"] not in cli.run(*command).output
    (listed,) = cli.data("integration", "list", "--org", salon)
    assert listed["keys"] == ["account_sid", "auth_token", "from_number"]
    with platform.database.transaction(system=True) as session:
        assert TWILIO["auth_token"].encode() not in session.scalars(select(Integration.credentials)).one()
        trail = session.scalars(select(OperatorAction)).all()
    assert TWILIO["auth_token"] not in str([line.details for line in trail])


def test_a_key_that_is_wrong_is_named_and_its_value_is_not(cli: CommandLine, salon: str) -> None:
    refused = cli.refusal("integration", "add", salon, "twilio", *settings_of({**TWILIO, "acount": "hush-hush"}))
    assert "acount" in refused["message"]
    assert "hush-hush" not in refused["message"]
    usage = cli.refusal("integration", "add", salon, "vapi", "--set", "hush-hush", exit_code=2)
    assert "hush-hush" not in usage["message"]


def test_a_value_may_come_from_a_file(cli: CommandLine, salon: str, tmp_path: Path, platform: Platform) -> None:
    secret = tmp_path / "secret"
    secret.write_text("from-a-file\n")
    made = cli.data("integration", "add", salon, "vapi", "--set", f"webhook_secret=@{secret}")
    assert webhook_secret(platform, made["token"]) == "from-a-file"
    made = cli.data("integration", "add", salon, "vapi", "--set", "webhook_secret=@@home")
    assert webhook_secret(platform, made["token"]) == "@home"
    missing = cli.refusal("integration", "add", salon, "vapi", "--set", "webhook_secret=@/nowhere", exit_code=2)
    assert "/nowhere cannot be read" in missing["message"]


def test_setting_one_key_keeps_the_others_and_an_empty_one_goes(
    cli: CommandLine, salon: str, platform: Platform
) -> None:
    keys = ("--set", "webhook_secret=shhh", "--set", "hmac_algorithm=sha512", "--set", "hmac_header=X-First")
    made = cli.data("integration", "add", salon, "vapi", *keys)
    cli.data("integration", "set", made["id"], "--set", "hmac_signature_header=X-Second")
    credentials = platform.directory.endpoint("vapi", made["token"]).credentials
    assert isinstance(credentials, VapiCredentials)
    assert (credentials.hmac.header, credentials.hmac.algorithm) == ("x-second", "sha512")
    shown = cli.data("integration", "set", made["id"], "--set", "hmac_algorithm=", "--set", "hmac_header=")
    assert shown["keys"] == ["webhook_secret"]
    assert webhook_secret(platform, made["token"]) == "shhh"


def test_taking_away_what_is_needed_is_refused(cli: CommandLine, salon: str) -> None:
    made = cli.data("integration", "add", salon, "vapi", "--set", "webhook_secret=shhh")
    assert "webhook_secret" in cli.refusal("integration", "set", made["id"], "--set", "webhook_secret=")["message"]


def test_a_disabled_connection_takes_no_webhooks(cli: CommandLine, salon: str, platform: Platform) -> None:
    made = cli.data("integration", "add", salon, "vapi", "--set", "webhook_secret=shhh")
    assert platform.directory.endpoint("vapi", made["token"]).org_id == UUID(salon)
    assert cli.data("integration", "disable", made["id"])["disabled_at"]
    with pytest.raises(UnknownEndpoint):
        platform.directory.endpoint("vapi", made["token"])
    assert cli.data("integration", "disable", made["id"])["disabled_at"]
    assert cli.refusal("integration", "disable", uuid4())["code"] == "not_found"


def test_what_operators_do_leaves_a_trail(cli: CommandLine, salon: str, platform: Platform) -> None:
    cli.data("org", "set", salon, "--slot", "20")
    made = cli.data("integration", "add", salon, "vapi", "--set", "webhook_secret=shhh")
    with platform.database.transaction(UUID(salon)) as session:
        trail = session.scalars(select(OperatorAction).order_by(OperatorAction.id)).all()
    assert [line.action for line in trail] == ["organization.create", "organization.set", "integration.add"]
    assert trail[1].details == {"fields": ["slot_minutes"]}
    assert (trail[2].subject, trail[2].details) == (made["id"], {"provider": "vapi", "keys": ["webhook_secret"]})
    assert all(line.actor for line in trail)


def webhook_secret(platform: Platform, token: str) -> str:
    credentials = platform.directory.endpoint("vapi", token).credentials
    assert isinstance(credentials, VapiCredentials)
    assert credentials.webhook_secret is not None
    return credentials.webhook_secret.get_secret_value()
