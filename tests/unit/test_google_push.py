"""Google's pushes: believed by their token, read from their headers, and what an operator may set."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from pydantic import ValidationError

from app.errors import MalformedEvent, SignatureInvalid, SignatureMissing
from app.integrations.events import WebhookRequest
from app.integrations.google_calendar import GoogleCalendarCredentials, new_channel_id, parse, verify
from tests.verdicts import holds

NOW = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)
HEADERS = {
    "x-goog-channel-token": "only-between-us",
    "x-goog-channel-id": "5f1f1a30-0000-4000-8000-00000000c0de",
    "x-goog-resource-id": "R3source_1d-x",
    "x-goog-resource-state": "exists",
    "x-goog-message-number": "165140",
    "x-goog-resource-uri": "https://www.googleapis.com/calendar/v3/calendars/desk%40example.com/events?alt=json",
    "x-goog-channel-expiration": "Tue, 01 Dec 2026 09:51:46 GMT",
    "content-type": "",
}
ACCOUNT = json.dumps({"type": "service_account", "client_email": "d@x.example", "private_key": "-----BEGIN"})


def push(**changes: str | None) -> WebhookRequest:
    changed = {**HEADERS, **{name.replace("_", "-"): value for name, value in changes.items()}}
    return WebhookRequest(
        "POST", "https://desk.example/", {name: value for name, value in changed.items() if value is not None}, b""
    )


def credentials(**given: str) -> GoogleCalendarCredentials:
    return GoogleCalendarCredentials.model_validate({"channel_token": "only-between-us", **given})


class TestVerify:
    def test_the_channel_token_is_believed(self) -> None:
        configured = credentials(channel_id=HEADERS["x-goog-channel-id"], resource_id=HEADERS["x-goog-resource-id"])
        assert holds(lambda: verify(push(), credentials(), now=NOW))
        assert holds(lambda: verify(push(), configured, now=NOW))

    @pytest.mark.parametrize("token", [None, ""])
    def test_no_token_is_a_missing_proof(self, token: str | None) -> None:
        with pytest.raises(SignatureMissing):
            verify(push(x_goog_channel_token=token), credentials(), now=NOW)

    @pytest.mark.parametrize("token", ["only-between-uS", "жук", "\xff", "\ud800"])
    def test_another_token_is_refused_and_never_an_error(self, token: str) -> None:
        with pytest.raises(SignatureInvalid):
            verify(push(x_goog_channel_token=token), credentials(), now=NOW)

    @pytest.mark.parametrize("name", ["channel_id", "resource_id"])
    def test_a_configured_channel_and_resource_must_be_there_and_match(self, name: str) -> None:
        with pytest.raises(SignatureInvalid):
            verify(push(), credentials(**{name: "another"}), now=NOW)
        with pytest.raises(SignatureMissing):
            verify(push(**{f"x_goog_{name}": None}), credentials(**{name: "another"}), now=NOW)

    def test_a_channel_of_the_houses_own_is_believed_beside_the_one_that_was_set(self) -> None:
        pinned = credentials(channel_id=HEADERS["x-goog-channel-id"])
        ours = new_channel_id("only-between-us")
        assert ours != new_channel_id("only-between-us")
        verify(push(), pinned, now=NOW)
        verify(push(x_goog_channel_id=ours), pinned, now=NOW)
        for other in (new_channel_id("another-token"), str(uuid4()), "no uuid"):
            with pytest.raises(SignatureInvalid):
                verify(push(x_goog_channel_id=other), pinned, now=NOW)

    def test_an_integration_without_a_token_believes_nobody(self) -> None:
        unset = GoogleCalendarCredentials(service_account_json=ACCOUNT)
        with pytest.raises(SignatureInvalid):
            verify(push(), unset, now=NOW)


class TestParse:
    @pytest.mark.parametrize(
        ("state", "kind"),
        [
            ("sync", "calendar.sync"),
            ("exists", "calendar.changed"),
            ("not_exists", "calendar.changed"),
            ("something_new", "calendar.changed"),
        ],
    )
    def test_the_first_push_is_a_handshake_and_all_others_mean_go_and_look(self, state: str, kind: str) -> None:
        assert parse(push(x_goog_resource_state=state)).type == kind

    def test_a_push_is_known_by_channel_and_number_and_its_lane_is_the_resource(self) -> None:
        event = parse(push())
        assert event.event_key == "5f1f1a30-0000-4000-8000-00000000c0de:165140"
        assert event.lane_key.startswith("calendar:")
        assert len(event.lane_key) == len("calendar:") + 16
        assert event.lane_key == parse(push(x_goog_channel_id="renewed", x_goog_message_number="1")).lane_key

    def test_the_payload_has_all_a_push_says(self) -> None:
        assert parse(push()).payload == {
            "channel_id": HEADERS["x-goog-channel-id"],
            "resource_id": HEADERS["x-goog-resource-id"],
            "resource_state": "exists",
            "message_number": 165140,
            "expiration": "2026-12-01T09:51:46+00:00",
            "resource_uri": HEADERS["x-goog-resource-uri"],
        }

    @pytest.mark.parametrize(
        ("header", "moment"),
        [
            ("1796118706000", "2026-12-01T09:51:46+00:00"),
            ("whenever", None),
            ("9" * 30, None),
            ("", None),
            (None, None),
        ],
    )
    def test_an_expiration_is_a_date_or_milliseconds_or_unknown(self, header: str | None, moment: str | None) -> None:
        assert parse(push(x_goog_channel_expiration=header)).payload["expiration"] == moment

    @pytest.mark.parametrize("name", ["channel_id", "resource_id", "resource_state", "message_number"])
    @pytest.mark.parametrize("value", [None, "", "  "])
    def test_a_push_without_what_google_always_sends_is_malformed(self, name: str, value: str | None) -> None:
        with pytest.raises(MalformedEvent):
            parse(push(**{f"x_goog_{name}": value}))

    @pytest.mark.parametrize(
        "changes",
        [
            {"x_goog_channel_id": "x" * 65},
            {"x_goog_channel_id": "a:b"},
            {"x_goog_message_number": "-1"},
            {"x_goog_message_number": "٣"},
            {"x_goog_message_number": "9" * 21},
        ],
    )
    def test_strange_ids_are_malformed(self, changes: dict[str, str]) -> None:
        with pytest.raises(MalformedEvent):
            parse(push(**changes))

    def test_strange_characters_can_be_stored(self) -> None:
        payload = parse(push(x_goog_resource_id="a\x00b\ud800")).payload
        assert payload["resource_id"] == "a\ufffdb\ufffd"


class TestCredentials:
    @pytest.mark.parametrize(
        "given",
        [
            {"service_account_json": ACCOUNT},
            {"service_account_json": ACCOUNT, "subject": "owner@example.com"},
            {"refresh_token": "r", "client_id": "c", "client_secret": "s"},
            {"channel_token": "t"},
        ],
    )
    def test_one_way_in_is_enough(self, given: dict[str, str]) -> None:
        assert GoogleCalendarCredentials.model_validate(given).calendar_id == "primary"

    @pytest.mark.parametrize(
        "given",
        [
            {},
            {"calendar_id": "x"},
            {"channel_token": ""},
            {"channel_token": "t", "nonsense": "x"},
            {"refresh_token": "r", "client_id": "c"},
            {"service_account_json": ACCOUNT, "refresh_token": "r", "client_id": "c", "client_secret": "s"},
            {"service_account_json": "no json"},
            {"service_account_json": "[]"},
            {"service_account_json": '{"type": "authorized_user"}'},
            {"service_account_json": '{"type": "service_account", "client_email": "x"}'},
            {"channel_token": "t", "subject": "owner@example.com"},
            {"channel_token": "t", "token_uri": "file:///etc/passwd"},
        ],
    )
    def test_what_cannot_work_is_refused_when_it_is_set(self, given: dict[str, str]) -> None:
        with pytest.raises(ValidationError):
            GoogleCalendarCredentials.model_validate(given)

    def test_no_secret_shows_in_errors_or_representations(self) -> None:
        with pytest.raises(ValidationError) as refused:
            GoogleCalendarCredentials.model_validate({"service_account_json": "tell-nobody"})
        assert "tell-nobody" not in f"{refused.value}{credentials(channel_token='tell-nobody')!r}"
