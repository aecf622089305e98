"""One account for many organizations: told apart by what each event names, and never guessed."""

from __future__ import annotations

import json
import secrets
from urllib.parse import urlencode
from uuid import UUID

import pytest
from flask.testing import FlaskClient
from sqlalchemy import text
from twilio.request_validator import RequestValidator
from werkzeug.test import TestResponse

from app.services import alert_causes, ledger, messages
from app.services.platform import Platform
from tests.command_line import CommandLine
from tests.leaks import plant, plant_words

ACCOUNT, SUBACCOUNT = "AC" + "1" * 32, "AC" + "2" * 32
SALON_NUMBER, DENTAL_NUMBER = "+4930555550001", "+4940555550002"


class Desk:
    """Two organizations without integrations of their own, and the platform's two accounts."""

    def __init__(self, platform: Platform, client: FlaskClient, cli: CommandLine) -> None:
        self.platform, self.client, self.cli = platform, client, cli
        self.salon = cli.data("org", "create", "Corner Salon", "--timezone", "Europe/Berlin")["id"]
        self.dental = cli.data("org", "create", "Quay Dental", "--timezone", "Europe/Berlin")["id"]
        self.secret, self.token, self.sub_token = (secrets.token_hex(16) for _ in range(3))
        plant(self.secret, self.token, self.sub_token)
        self.vapi_id, self.vapi_url = self._add("vapi", f"webhook_secret={self.secret}")
        tokens = f"subaccount_tokens={SUBACCOUNT}={self.sub_token}"
        self.twilio_id, self.twilio_url = self._add(
            "twilio", f"account_sid={ACCOUNT}", f"auth_token={self.token}", tokens
        )

    def _add(self, provider: str, *pairs: str) -> tuple[str, str]:
        words = [word for pair in pairs for word in ("--set", pair)]
        made = self.cli.data("integration", "add", "--platform", provider, *words)
        plant(made["token"])
        return made["id"], made["webhook_url"].removeprefix("https://voicedesk.test")

    def vapi(self, **message: object) -> TestResponse:
        plant_words(message)
        return self.client.post(
            self.vapi_url,
            data=json.dumps({"message": message}),
            content_type="application/json",
            headers={"X-Vapi-Secret": self.secret},
        )

    def text(self, to: str, body: str = "hello there", *, token: str = "", path: str = "", **more: str) -> TestResponse:
        params = {"MessageSid": "SM" + secrets.token_hex(16), "AccountSid": ACCOUNT, "From": "+4915112345678"}
        params |= {"To": to, "Body": body, "NumMedia": "0", **more}
        plant_words(params)
        url = self.twilio_url + path
        signature = RequestValidator(token or self.token).compute_signature("https://voicedesk.test" + url, params)
        return self.client.post(
            url,
            data=urlencode(params),
            content_type="application/x-www-form-urlencoded",
            headers={"X-Twilio-Signature": signature},
        )

    def events(self, org_id: str | UUID) -> list[str]:
        rows = self.cli.data("deliveries", "list", "--org", org_id)
        return [row["type"] for row in rows if row["provider"] != "voicedesk"]

    def unowned(self) -> list[dict]:
        return self.cli.data("deliveries", "list", "--unowned")


@pytest.fixture
def desk(platform: Platform, world: object, client: FlaskClient, cli: CommandLine) -> Desk:
    return Desk(platform, client, cli)


def call(number: int, **more: object) -> dict:
    return {"id": f"call-{number}", **more}


def test_calls_are_told_apart_by_assistant_by_vapis_number_and_by_the_dialled_number(desk):
    desk.cli.data("org", "set", desk.salon, "--assistant", "asst-salon", "--vapi-phone-number", "pn-salon")
    desk.cli.data("org", "set", desk.dental, "--assistant", "asst-dental", "--number", DENTAL_NUMBER)
    desk.vapi(type="status-update", status="in-progress", call=call(1, assistantId="asst-salon"))
    desk.vapi(type="status-update", status="in-progress", call=call(2, phoneNumberId="pn-salon"))
    desk.vapi(type="status-update", status="in-progress", call=call(3, assistantId="asst-dental"))
    desk.vapi(
        type="status-update", status="in-progress", call=call(4), phoneNumber={"id": "pn-x", "number": DENTAL_NUMBER}
    )
    assert len(desk.events(desk.salon)) == 2
    assert len(desk.events(desk.dental)) == 2
    assert desk.unowned() == []


def test_texts_are_told_apart_by_number_by_account_and_by_messaging_service(desk, settle):
    service = "MG" + "3" * 32
    desk.cli.data("org", "set", desk.salon, "--number", SALON_NUMBER, "--messaging-service", service)
    desk.cli.data("org", "set", desk.dental, "--twilio-account", SUBACCOUNT)
    assert desk.text(SALON_NUMBER).status_code == 200
    assert desk.text("+4930999990000", MessagingServiceSid=service).status_code == 200
    assert desk.text("+4940999990000", token=desk.sub_token, AccountSid=SUBACCOUNT).status_code == 200
    assert len(desk.events(desk.salon)) == 2
    assert len(desk.events(desk.dental)) == 1
    assert desk.unowned() == []


def test_a_subaccount_is_believed_only_with_its_own_token(desk):
    desk.cli.data("org", "set", desk.dental, "--twilio-account", SUBACCOUNT)
    assert desk.text("+4940999990000", token=desk.token, AccountSid=SUBACCOUNT).status_code == 403


def test_an_organizations_own_integration_is_never_routed_by_what_a_body_says(desk, people):
    desk.cli.data("org", "set", desk.dental, "--assistant", "asst-dental")
    people.salon.vapi(
        desk.client, {"type": "status-update", "status": "ended", "call": {"id": "c", "assistantId": "asst-dental"}}
    )
    assert desk.events(people.salon.id) == ["status-update"]
    assert desk.events(desk.dental) == []


def test_a_key_of_another_organization_is_refused_by_its_name(desk):
    desk.cli.data("org", "set", desk.salon, "--number", SALON_NUMBER)
    refused = desk.cli.refusal("org", "set", desk.dental, "--number", SALON_NUMBER, "--slot", "45")
    assert refused["code"] == "taken"
    assert refused["message"].startswith(f"number: organization {desk.salon} has it")
    assert desk.cli.data("org", "show", desk.dental)["slot"] == 30
    desk.cli.data("org", "set", desk.salon, "--number", "")
    assert desk.cli.data("org", "set", desk.dental, "--number", SALON_NUMBER)["routing"] == {
        "phone_number": SALON_NUMBER
    }


def test_an_unowned_event_is_kept_listed_and_told_and_delivered_once_when_its_owner_is_named(desk, settle):
    assert desk.text(SALON_NUMBER, MessageSid="SM" + "a" * 32).status_code == 200
    (waiting,) = desk.unowned()
    assert (waiting["status"], waiting["error_code"]) == ("received", "unowned")
    (cause,) = (one for look in alert_causes.SHARED for one in look.find(desk.platform) if one.kind == "unowned_event")
    assert cause.facts["delivery_ids"] == [waiting["id"]]
    settle(lambda: True)
    assert desk.unowned()[0]["status"] == "received"
    assert ledger.check(desk.platform).difference == 0

    shown = desk.cli.data("org", "set", desk.salon, "--number", SALON_NUMBER)
    assert shown["events_delivered"] == 1
    settle(lambda: desk.cli.data("deliveries", "show", waiting["id"])["status"] == "processed")
    (message,) = desk.cli.data("messages", "list", "--org", desk.salon)
    assert message["from"] == "+4915112345678"
    assert desk.unowned() == []
    assert ledger.check(desk.platform).difference == 0

    assert desk.text(SALON_NUMBER, MessageSid="SM" + "a" * 32).status_code == 200
    assert len(desk.events(desk.salon)) == 1
    books = dict(unbalanced(desk.platform))
    assert books == {}


def unbalanced(platform: Platform) -> list:
    from app.models.ledger import unbalanced as of

    with platform.database.transaction(system=True) as session:
        return of(session)


def test_what_a_process_stored_as_nobodys_though_it_has_an_owner_is_found_by_the_watcher(desk):
    desk.text(SALON_NUMBER)
    with desk.platform.database.transaction(system=True) as session:
        session.execute(
            text("INSERT INTO routing_keys VALUES ('phone_number', :number, :org)"),
            {"number": SALON_NUMBER, "org": desk.salon},
        )
    assert [
        one for look in alert_causes.SHARED for one in look.find(desk.platform) if one.kind == "unowned_event"
    ] == []
    assert len(desk.events(desk.salon)) == 1


def test_keys_of_two_organizations_in_one_event_are_nobodys_and_given_by_hand(desk, settle):
    desk.cli.data("org", "set", desk.salon, "--assistant", "asst-salon")
    desk.cli.data("org", "set", desk.dental, "--vapi-phone-number", "pn-dental")
    desk.vapi(type="status-update", status="ended", call=call(1, assistantId="asst-salon", phoneNumberId="pn-dental"))
    (waiting,) = desk.unowned()
    assert waiting["note"] == "its keys name different organizations"
    desk.cli.data("deliveries", "assign", waiting["id"], desk.dental)
    settle(lambda: desk.cli.data("deliveries", "show", waiting["id"])["status"] == "processed")
    assert len(desk.cli.data("calls", "list", "--org", desk.dental)) == 1
    assert desk.cli.refusal("deliveries", "assign", waiting["id"], desk.salon)["code"] == "not_unowned"


def test_a_caller_of_a_number_nobody_owns_hears_so_and_never_somebody_elses_assistant(desk):
    desk.cli.data("org", "set", desk.salon, "--assistant", "asst-salon")
    answer = desk.vapi(type="assistant-request", call=call(1), phoneNumber={"id": "pn", "number": "+4930777770000"})
    assert answer.get_json() == {"error": "You have reached a number that is not set up yet."}
    tools = [{"id": "t1", "type": "function", "function": {"name": "check_availability", "arguments": {}}}]
    answer = desk.vapi(type="tool-calls", call=call(2), toolCallList=tools)
    (result,) = answer.get_json()["results"]
    assert result["result"] == "You have reached a number that is not set up yet."
    assert len(desk.unowned()) == 2


def test_stop_to_a_number_nobody_owned_counts_from_when_it_came(desk):
    desk.text(SALON_NUMBER, "STOP")
    desk.cli.data("org", "set", desk.salon, "--number", SALON_NUMBER)
    with desk.platform.database.transaction(UUID(desk.salon)) as session:
        assert session.execute(text("SELECT address, opted_out FROM opt_outs")).all() == [("+4915112345678", True)]


def test_a_text_goes_out_from_the_organizations_own_number_and_its_status_finds_it(desk, world, settle):
    world.twilio_account(ACCOUNT, desk.token, numbers=[SALON_NUMBER, DENTAL_NUMBER])
    desk.cli.data("org", "set", desk.salon, "--number", SALON_NUMBER)
    desk.cli.data("org", "set", desk.dental, "--number", DENTAL_NUMBER)
    with desk.platform.database.transaction(UUID(desk.dental)) as session:
        message_id = messages.plan_text(
            session,
            UUID(desk.dental),
            to="+4915187654321",
            body="See you at ten.",
            channel="sms",
            idempotency_key="k",
            purpose="reply",
        )
    settle(lambda: desk.cli.data("messages", "list", "--org", desk.dental)[0]["sid"])
    (sent,) = desk.cli.data("messages", "list", "--org", desk.dental)
    assert sent["from"] == DENTAL_NUMBER
    status = {"MessageSid": sent["sid"], "MessageStatus": "delivered", "From": DENTAL_NUMBER}
    assert desk.text("+4915187654321", path=f"/status?m={message_id}", **status).status_code == 200
    settle(lambda: desk.cli.data("messages", "list", "--org", desk.dental)[0]["status"] == "delivered")
    assert desk.events(desk.salon) == []
    assert desk.unowned() == []


def test_only_what_can_serve_many_may_be_the_platforms(desk):
    refused = desk.cli.refusal("integration", "add", "--platform", "google-calendar", "--set", "channel_token=x")
    assert refused["code"] == "invalid_input"
    assert "--platform" in desk.cli.refusal("integration", "add", "vapi", "--set", "webhook_secret=x")["message"]


def test_a_caller_is_answered_for_the_right_organization_while_the_database_is_away(desk, monkeypatch):
    desk.cli.data("org", "set", desk.salon, "--assistant", "asst-salon", "--number", SALON_NUMBER)
    asked = {"type": "assistant-request", "call": call(9), "phoneNumber": {"id": "pn", "number": SALON_NUMBER}}
    desk.platform.directory.warm()
    from app.errors import DatabaseUnavailable

    def away(*_: object, **__: object) -> None:
        raise DatabaseUnavailable

    monkeypatch.setattr(desk.platform.database, "_session", away)
    assert desk.vapi(**asked).get_json()["assistantId"] == "asst-salon"
