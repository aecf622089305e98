"""Simulated traffic against the product itself, over HTTP: what it sends is what a provider would send."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from werkzeug.serving import make_server

from app.models import messages
from app.services import simulated_vapi
from app.services.drain import Drain
from app.services.platform import Platform
from sandbox.ports import free_port
from tests.command_line import CommandLine
from tests.people import People

PUBLIC = "https://voicedesk.test"


@pytest.fixture
def server(app: Flask) -> Iterator[str]:
    """The application behind a real socket."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join(timeout=5)
    server.server_close()


class Sender:
    """The simulate command for one organization's endpoints."""

    def __init__(self, cli: CommandLine, server: str, people: People) -> None:
        self._cli, self._server, self._business = cli, server, people.salon

    def vapi(self, event: str, *more: str, secret: str | None = None) -> Any:
        business = self._business
        url = f"{self._server}/webhooks/vapi/{business.vapi_token}"
        return self._cli.data(
            "simulate", "vapi", event, "--url", url, "--secret", secret or business.vapi_secret, *more
        )

    def twilio(self, event: str, *more: str, path: str = "", public: bool = True) -> Any:
        business = self._business
        target = f"/webhooks/twilio/{business.twilio_token}{path}"
        signed = ("--public-url", PUBLIC + target) if public else ()
        account = ("--account-sid", business.account_sid, "--secret", business.auth_token)
        return self._cli.data("simulate", "twilio", event, "--url", self._server + target, *signed, *account, *more)

    def google(self, event: str, *more: str) -> Any:
        business = self._business
        url = f"{self._server}/webhooks/google-calendar/{business.google_token}"
        return self._cli.data(
            "simulate", "google-calendar", event, "--url", url, "--secret", business.channel_token, *more
        )


@pytest.fixture
def send(cli: CommandLine, server: str, people: People) -> Sender:
    return Sender(cli, server, people)


def test_every_message_type_of_vapi_is_taken_and_so_is_one_that_nobody_knows(send: Sender, cli: CommandLine) -> None:
    events = [*simulated_vapi.KNOWN, "something.new"]
    for event in events:
        assert send.vapi(event)["status"] == 200, event
    assert len(cli.data("deliveries", "list")) == len(events)


@pytest.mark.parametrize("scheme", ["secret", "bearer", "hmac"])
def test_vapis_three_ways_to_prove_itself_hold_and_a_wrong_secret_does_not(send: Sender, scheme: str) -> None:
    assert send.vapi("status-update", "--scheme", scheme)["status"] == 200
    assert send.vapi("status-update", "--scheme", scheme, secret="guessed")["status"] in (401, 403)


def test_a_signature_covers_the_body_and_its_age(send: Sender) -> None:
    assert send.vapi("status-update", "--scheme", "hmac", "--tamper")["status"] == 403
    assert send.vapi("status-update", "--scheme", "hmac", "--age", "400")["status"] == 403
    assert send.twilio("inbound", "--tamper")["status"] == 403


def test_a_signature_plan_is_set_with_an_integrations_own_keys(
    send: Sender, cli: CommandLine, people: People, server: str
) -> None:
    plan = (
        *("--set", "webhook_secret=whsec_c2VjcmV0", "--set", "hmac_secret_is_base64=true"),
        *("--set", "hmac_payload_format={svix-id}.{timestamp}.{body}", "--set", "hmac_encoding=base64"),
        *("--set", "hmac_header=webhook-signature", "--set", "hmac_prefix=v1,"),
    )
    made = cli.data("integration", "add", people.dental.id, "vapi", *plan)
    url = f"{server}/webhooks/vapi/{made['token']}"
    arguments = ("simulate", "vapi", "hang", "--url", url, "--secret", "whsec_c2VjcmV0", "--scheme", "hmac")
    assert cli.data(*arguments, *plan[2:])["status"] == 200
    assert cli.data(*arguments)["status"] in (401, 403)


def test_a_secret_is_never_told(send: Sender, people: People) -> None:
    for scheme in ("secret", "bearer"):
        told = send.vapi("hang", "--scheme", scheme)
        assert people.salon.vapi_secret not in json.dumps(told)
    told = send.google("sync")
    assert people.salon.channel_token not in json.dumps(told)
    assert told["request"]["headers"]["X-Goog-Channel-Token"] == "[secret]"


def test_the_same_event_is_stored_once_and_new_ones_each_time(send: Sender, cli: CommandLine) -> None:
    assert [told["status"] for told in send.vapi("status-update", "--times", "3", "--same")] == [200, 200, 200]
    assert len(cli.data("deliveries", "list")) == 1
    send.vapi("status-update", "--times", "3")
    assert len(cli.data("deliveries", "list")) == 4
    send.google("changed", "--times", "2")
    assert len(cli.data("deliveries", "list")) == 6


def test_a_tool_call_is_answered_under_its_id(send: Sender) -> None:
    told = send.vapi(
        "tool-calls", "--tool", "check_availability", "--arg", "start=2031-03-04", "--tool-call-id", "call_7"
    )
    (result,) = json.loads(told["body"])["results"]
    assert result["toolCallId"] == "call_7"
    assert result["result"].startswith("Free times:")


def test_a_web_call_has_no_numbers_and_a_phone_call_the_ones_given(send: Sender) -> None:
    web = json.loads(send.vapi("status-update", "--web")["request"]["body"])["message"]
    assert web["call"]["type"] == "webCall"
    assert "customer" not in web
    assert "phoneNumber" not in web
    phone = json.loads(send.vapi("status-update", "--caller", "+4915112345678")["request"]["body"])["message"]
    assert phone["customer"] == {"number": "+4915112345678"}


def test_a_report_ends_as_a_call_with_all_its_facts(send: Sender, cli: CommandLine, platform: Platform) -> None:
    send.vapi("status-update", "--call-id", "call-1", "--status", "ended", "--ended-reason", "silence-timed-out")
    send.vapi("end-of-call-report", "--call-id", "call-1", "--caller", "+4915112345678")
    Drain(platform, threads=1).run(seconds=10)
    (call,) = cli.data("calls", "list")
    assert (call["call_id"], call["status"], call["customer_number"]) == ("call-1", "ended", "+4915112345678")
    assert all(call[fact] for fact in ("cost", "summary", "transcript", "recording_url", "duration_seconds"))


def test_texts_come_in_by_sms_and_whatsapp_also_from_somebody_without_a_number(
    send: Sender, cli: CommandLine, platform: Platform
) -> None:
    assert send.twilio("inbound", "--from", "+4915112345678", "--body", "Hé: 10% & more?")["status"] == 200
    assert send.twilio("whatsapp", "--from", "+4915112345679")["status"] == 200
    assert send.twilio("whatsapp", "--from", "US.1234")["status"] == 200
    Drain(platform, threads=1).run(seconds=10)
    texts = cli.data("messages", "list")
    assert {(text["channel"], text["from"]) for text in texts} == {
        ("sms", "+4915112345678"),
        ("whatsapp", "+4915112345679"),
        ("whatsapp", "US.1234"),
    }
    assert "Hé: 10% & more?" in {text["body"] for text in texts}


def test_stop_and_start_are_understood(send: Sender, platform: Platform, people: People) -> None:
    for event, opted_out in (("stop", True), ("start", False)):
        assert send.twilio(event, "--from", "+4915112345678")["status"] == 200
        assert has_opted_out(platform, people, "+4915112345678") is opted_out


def test_a_status_report_is_signed_with_its_query(send: Sender) -> None:
    assert send.twilio("status", path="/status?m=4b40bc7b-b829-4d35-a548-18baedf78917&x=%20y")["status"] == 200


def test_the_url_that_is_posted_to_is_what_is_signed_unless_another_is_given(send: Sender) -> None:
    assert send.twilio("inbound", public=False)["status"] == 403


def test_google_says_sync_and_changed(send: Sender, cli: CommandLine) -> None:
    assert send.google("sync")["status"] in (200, 204)
    assert send.google("changed")["status"] in (200, 204)
    assert {row["type"] for row in cli.data("deliveries", "list")} == {"calendar.sync", "calendar.changed"}


def test_a_server_that_is_not_there_is_an_error_without_a_traceback(cli: CommandLine) -> None:
    url = f"http://127.0.0.1:{free_port()}/"
    refused = cli.refusal("simulate", "vapi", "hang", "--url", url, "--secret", "s")
    assert refused["code"] == "no_answer"
    for wrong in ("127.0.0.1:80", "ftp://x/", "http://", "http://x:notaport/"):
        assert cli.refusal("simulate", "vapi", "hang", "--url", wrong, "--secret", "s")["code"] == "invalid_input"


def has_opted_out(platform: Platform, people: People, address: str) -> bool:
    with platform.database.transaction(people.salon.id) as session:
        return messages.has_opted_out(session, people.salon.id, address)
