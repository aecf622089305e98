"""What Twilio's webhooks say: texts that come in, and news of texts that went out."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from app.errors import MalformedEvent, RequestRefused, SignatureInvalid
from app.integrations.events import ConsentChange, InboundEvent, WebhookRequest
from app.integrations.twilio import (
    STATUS_RANK,
    classify_status_error,
    conversation_lane,
    moves_forward,
    parse_inbound,
    parse_status,
)
from tests.twilio_webhooks import ACCOUNT, SID, STATUS_URL, TEXT, URL, form_request


def _inbound(**changes: str | None) -> InboundEvent:
    params = {name: value for name, value in {**TEXT, **changes}.items() if value is not None}
    return parse_inbound(form_request(params), account_sid=ACCOUNT)


def _status(url: str = STATUS_URL, **changes: str | None) -> InboundEvent:
    params = {"MessageSid": SID, "MessageStatus": "delivered", "AccountSid": ACCOUNT, **changes}
    return parse_status(form_request({n: v for n, v in params.items() if v is not None}, url=url), account_sid=ACCOUNT)


# --- texts that come in -----------------------------------------------------------------------


def test_an_sms_becomes_an_event_with_everything_that_was_sent_and_what_we_need_of_it() -> None:
    event = _inbound(NumMedia="2", MediaUrl0="https://m/0", MediaContentType0="image/png", MediaUrl1="https://m/1")
    assert (event.provider, event.type, event.event_key) == ("twilio", "message.inbound", f"in:{SID}")
    assert event.lane_key == conversation_lane("+12025550143")
    assert event.consent is None
    assert event.payload["Body"] == TEXT["Body"]
    assert event.payload["ToCity"] == ""
    assert event.payload["_"] == {
        "channel": "sms",
        "address_from": "+12025550143",
        "address_to": "+12025550188",
        "body": TEXT["Body"],
        "message_sid": SID,
        "wa_id": None,
        "user_id": None,
        "profile_name": None,
        "media": [
            {"url": "https://m/0", "content_type": "image/png"},
            {"url": "https://m/1", "content_type": ""},
        ],
        "status": "received",
        "error_code": None,
        "message_id": None,
    }


def test_a_whatsapp_sender_shares_the_lane_of_the_same_number_by_sms() -> None:
    event = _inbound(
        From="whatsapp:+12025550143", To="whatsapp:+12025550188", WaId="12025550143", ProfileName="Alex Example"
    )
    news = event.payload["_"]
    assert (news["channel"], news["address_from"], news["wa_id"]) == ("whatsapp", "+12025550143", "12025550143")
    assert news["profile_name"] == "Alex Example"
    assert event.lane_key == _inbound().lane_key


@pytest.mark.parametrize(
    "params", [{"From": "whatsapp:US.1234"}, {"From": "", "ExternalUserId": "whatsapp:US.1234"}], ids=["from", "id"]
)
def test_a_whatsapp_sender_without_a_phone_number_has_an_address_all_the_same(params: dict[str, str]) -> None:
    event = _inbound(To="whatsapp:+12025550188", Body="STOP", **params)
    assert event.payload["_"]["address_from"] == "US.1234"
    assert event.payload["_"]["channel"] == "whatsapp"
    assert event.consent == ConsentChange("US.1234", opted_out=True)


def test_no_key_of_an_event_contains_a_number() -> None:
    for event in (_inbound(), _status(To="+12025550143")):
        assert "2025550143" not in event.event_key + event.lane_key
        assert max(len(event.event_key), len(event.lane_key)) <= 200


def test_a_channel_we_do_not_serve_is_recorded_as_something_else() -> None:
    assert _inbound(From="messenger:1234").type == "message.other"


def test_repeated_parameters_are_kept_as_lists_and_nul_is_shown() -> None:
    pairs = [*TEXT.items(), ("Tag", "a"), ("Tag", "b\x00")]
    event = parse_inbound(form_request([*pairs, ("Odd\x00", "x")]), account_sid=ACCOUNT)
    assert event.payload["Tag"] == ["a", "b\\u0000"]
    assert event.payload["Odd\\u0000"] == "x"
    assert "\x00" not in repr(_inbound(Body="a\x00b").payload)
    assert _inbound(Body="a\x00b").payload["_"]["body"] == "a\\u0000b"


@pytest.mark.parametrize(
    "changes",
    [
        {"MessageSid": None},
        {"MessageSid": "SM" + "x" * 500},
        {"From": None},
        {"From": ""},
        {"To": None},
        {"From": "whatsapp:" + "x" * 500},
    ],
)
def test_a_text_that_lacks_what_makes_it_one_is_malformed(changes: dict[str, Any]) -> None:
    with pytest.raises(MalformedEvent):
        _inbound(**changes)


@pytest.mark.parametrize("count", ["", "x", "-1", "9" * 5000, "²"])
def test_an_impossible_number_of_media_is_none(count: str) -> None:
    assert _inbound(NumMedia=count).payload["_"]["media"] == []


def test_an_event_of_another_account_is_refused_even_when_its_signature_holds() -> None:
    with pytest.raises(SignatureInvalid):
        _inbound(AccountSid="AC" + "2b" * 16)
    with pytest.raises(SignatureInvalid):
        _status(AccountSid="AC" + "2b" * 16)


def test_json_that_verified_is_no_text() -> None:
    request = WebhookRequest("POST", URL, {"content-type": "application/json"}, b"{}")
    for parse in (parse_inbound, parse_status):
        with pytest.raises(MalformedEvent):
            parse(request, account_sid=ACCOUNT)


@pytest.mark.parametrize("body", ["STOP", " stop \n", "StopAll", "UNSUBSCRIBE", "end", "Quit", "revoke", "OPTOUT"])
def test_the_words_of_refusal_opt_out(body: str) -> None:
    assert _inbound(Body=body).consent == ConsentChange("+12025550143", opted_out=True)
    assert _inbound(Body=body, From="whatsapp:+12025550143").consent == ConsentChange("+12025550143", opted_out=True)


@pytest.mark.parametrize("body", ["START", "unstop ", "Yes"])
def test_the_words_of_return_opt_in(body: str) -> None:
    assert _inbound(Body=body).consent == ConsentChange("+12025550143", opted_out=False)


@pytest.mark.parametrize("body", ["Please stop by at ten", "stop it", "CANCEL", "C", "HELP", "", "S T O P"])
def test_other_words_change_no_consent(body: str) -> None:
    assert _inbound(Body=body).consent is None


@pytest.mark.parametrize(
    ("body", "found", "opted_out"),
    [("CANCEL", "STOP", True), ("basta", "STOP", True), ("hola", "START", False), ("x", "HELP", None)],
)
def test_what_twilios_own_opt_out_handling_found_decides(body: str, found: str, opted_out: bool | None) -> None:
    consent = _inbound(Body=body, OptOutType=found).consent
    assert consent == (None if opted_out is None else ConsentChange("+12025550143", opted_out=opted_out))


# --- news of texts that went out --------------------------------------------------------------


def test_news_of_a_text_carries_our_own_id_from_the_signed_url() -> None:
    ours = str(uuid4())
    event = _status(f"{STATUS_URL}?m={ours}", MessageStatus="failed", ErrorCode="30003")
    assert (event.type, event.event_key) == ("message.status", f"status:{SID}:failed")
    assert event.lane_key == f"message:{ours}"
    news = event.payload["_"]
    assert (news["message_id"], news["message_sid"], news["status"]) == (ours, SID, "failed")
    assert news["error_code"] == "30003"


@pytest.mark.parametrize("query", ["", "?m=", "?m=1", "?m=%00", "?other=1"])
def test_news_without_our_id_goes_by_its_sid(query: str) -> None:
    event = _status(STATUS_URL + query)
    assert event.lane_key == f"message:{SID}"
    assert event.payload["_"]["message_id"] is None


def test_news_by_whatsapp_is_told_by_its_addresses_or_its_prefix() -> None:
    assert _status(To="whatsapp:+12025550143", From="whatsapp:+12025550188").payload["_"]["channel"] == "whatsapp"
    assert _status(ChannelPrefix="whatsapp").payload["_"]["channel"] == "whatsapp"
    assert _status(To="+12025550143").payload["_"]["channel"] == "sms"


def test_news_is_the_same_event_only_with_the_same_status() -> None:
    keys = {_status(MessageStatus=status).event_key for status in ("sent", "delivered", "DELIVERED", "read")}
    assert len(keys) == 3


@pytest.mark.parametrize("changes", [{"MessageSid": None}, {"MessageStatus": None}, {"MessageStatus": "x y" * 99}])
def test_news_that_cannot_be_understood_is_malformed(changes: dict[str, Any]) -> None:
    with pytest.raises(MalformedEvent):
        _status(**changes)


def test_a_status_only_moves_forward() -> None:
    order = ["accepted", "scheduled", "queued", "sending", "sent", "delivered", "read"]
    for earlier, later in zip(order, order[1:], strict=False):
        assert moves_forward(earlier, later)
        assert not moves_forward(later, earlier)
    for final in ("failed", "undelivered", "canceled"):
        assert moves_forward("sent", final)
        assert not moves_forward("delivered", final)
        assert not any(moves_forward(final, status) for status in STATUS_RANK)
    assert moves_forward(None, "queued")
    assert not moves_forward("sent", "a word that Twilio adds one day")


def test_a_failure_reported_later_is_permanent_unless_its_code_says_otherwise() -> None:
    assert classify_status_error("30003") == "permanent"
    assert classify_status_error(21610) == "permanent"
    assert classify_status_error("63018") == "temporary"
    assert classify_status_error(None) == "permanent"
    assert classify_status_error("99999") == "permanent"


def test_refusals_carry_no_part_of_the_request() -> None:
    for changes in ({"MessageSid": "SM-secret"}, {"AccountSid": "AC-secret"}):
        with pytest.raises(RequestRefused) as refusal:
            _inbound(**changes)
        assert "secret" not in str(refusal.value)
