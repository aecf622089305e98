"""Twilio's webhooks: who signed them, and what they say."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

import pytest
from pydantic import ValidationError
from twilio.request_validator import RequestValidator

from app.errors import MalformedEvent, RequestRefused, SignatureInvalid, SignatureMissing, UnsupportedContentType
from app.integrations.events import ConsentChange, InboundEvent, WebhookRequest
from app.integrations.twilio import (
    STATUS_RANK,
    TwilioCredentials,
    classify_status_error,
    conversation_lane,
    moves_forward,
    parse_inbound,
    parse_status,
    verify,
)
from app.integrations.twilio.signing import Form

ACCOUNT = "AC" + "1a" * 16
TOKEN = "a token of the tests"
SID = "SM" + "5f" * 16
URL = "https://desk.example.com/webhooks/twilio/tok_1"
STATUS_URL = URL + "/status"
NOW = datetime(2026, 3, 1, tzinfo=UTC)
CREDENTIALS = TwilioCredentials(account_sid=ACCOUNT, auth_token=TOKEN, from_number="+12025550188")
TEXT = {
    "MessageSid": SID,
    "AccountSid": ACCOUNT,
    "From": "+12025550143",
    "To": "+12025550188",
    "Body": "Is tomorrow at ten free?",
    "NumMedia": "0",
    "ToCity": "",
}

Pairs = Mapping[str, str] | list[tuple[str, str]]


def _request(params: Pairs, *, url: str = URL, headers: Mapping[str, str] | None = None) -> WebhookRequest:
    return WebhookRequest(
        method="POST",
        url=url,
        headers={"content-type": "application/x-www-form-urlencoded", **(headers or {})},
        body=urlencode(params).encode(),
    )


def _signed(params: Pairs, *, url: str = URL, signed_url: str | None = None, token: str = TOKEN) -> WebhookRequest:
    form = Form()
    for name, value in params.items() if isinstance(params, Mapping) else params:
        form.setdefault(name, []).append(value)
    signature = RequestValidator(token).compute_signature(signed_url or url, form)
    return _request(params, url=url, headers={"x-twilio-signature": signature})


def _check(request: WebhookRequest) -> None:
    verify(request, CREDENTIALS, now=NOW)


def _inbound(**changes: str | None) -> InboundEvent:
    params = {name: value for name, value in {**TEXT, **changes}.items() if value is not None}
    return parse_inbound(_request(params), account_sid=ACCOUNT)


def _status(url: str = STATUS_URL, **changes: str | None) -> InboundEvent:
    params = {"MessageSid": SID, "MessageStatus": "delivered", "AccountSid": ACCOUNT, **changes}
    return parse_status(_request({n: v for n, v in params.items() if v is not None}, url=url), account_sid=ACCOUNT)


# --- the signature ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        URL,
        STATUS_URL + "?m=4b7e6f10-52f5-4f10-9d57-0a5cbb6f4a01",
        "https://desk.example.com/webhooks/twilio/Jos%C3%A9%3A1?x=%7E%20y",
        "http://127.0.0.1:8000/webhooks/twilio/tok_1",
        URL + "?",
    ],
)
def test_a_webhook_signed_by_twilios_own_library_for_the_exact_url_holds(url: str) -> None:
    _check(_signed(TEXT, url=url))


def test_repeated_blank_and_padded_parameters_are_signed_as_they_were_sent() -> None:
    _check(_signed([*TEXT.items(), ("Tag", "b"), ("Tag", "a"), ("Tag", "b"), ("Blank", ""), ("Body2", "  x & é \n")]))


@pytest.mark.parametrize(
    ("url", "signed_url"),
    [
        (URL, URL.replace("desk.example.com", "desk.example.com:443")),
        (URL.replace("desk.example.com", "desk.example.com:443"), URL),
        (URL.replace("https://desk.example.com", "http://desk.example.com"), "http://desk.example.com:80" + URL[24:]),
        ("http://desk.example.com:8000" + URL[24:], "http://desk.example.com" + URL[24:]),
    ],
)
def test_twilio_may_sign_with_or_without_a_port(url: str, signed_url: str) -> None:
    _check(_signed(TEXT, url=url, signed_url=signed_url))


@pytest.mark.parametrize("name", sorted(TEXT))
def test_any_parameter_altered_or_dropped_breaks_the_signature(name: str) -> None:
    good = _signed(TEXT)
    for params in ({**TEXT, name: TEXT[name] + "x"}, {n: v for n, v in TEXT.items() if n != name}):
        with pytest.raises(SignatureInvalid):
            _check(_request(params, headers=good.headers))


@pytest.mark.parametrize(
    "request_",
    [
        _signed(TEXT, signed_url=URL + "x"),
        _signed(TEXT, signed_url=URL.replace("https", "http")),
        _signed(TEXT, token="another token"),
        _signed(TEXT, url=URL + "?a=1", signed_url=URL),
        _signed(TEXT, url="https://desk.example.com/José", signed_url="https://desk.example.com/Jos%C3%A9"),
    ],
    ids=["path", "scheme", "token", "query", "unescaped"],
)
def test_another_url_or_token_does_not_hold(request_: WebhookRequest) -> None:
    with pytest.raises(SignatureInvalid):
        _check(request_)


@pytest.mark.parametrize("headers", [{}, {"x-twilio-signature": ""}, {"x-twilio-signature": "  "}])
def test_a_missing_signature_is_refused_and_never_an_error_of_ours(headers: dict[str, str]) -> None:
    with pytest.raises(SignatureMissing):
        _check(_request(TEXT, headers=headers))


@pytest.mark.parametrize("value", ["x", "é" * 28, "=" * 28, "\x00", "a" * 10_000, "null"])
def test_a_malformed_signature_is_refused_and_never_an_error_of_ours(value: str) -> None:
    with pytest.raises(SignatureInvalid):
        _check(_request(TEXT, headers={"x-twilio-signature": value}))


@pytest.mark.parametrize(
    "body",
    [b"\xff\xfe=%FF", b"&".join(b"a=1" for _ in range(5_000)), b"=", b"", b"%", b"{"],
    ids=["bytes", "many", "nameless", "empty", "percent", "brace"],
)
def test_a_body_that_was_never_signed_is_refused_whatever_it_is(body: bytes) -> None:
    headers = {**_signed(TEXT).headers}
    with pytest.raises(SignatureInvalid):
        _check(WebhookRequest("POST", URL, headers, body))


def test_a_url_that_cannot_be_is_refused() -> None:
    with pytest.raises(SignatureInvalid):
        _check(WebhookRequest("POST", "https://desk.example.com:99999999/x", _signed(TEXT).headers, b"a=1"))


def _json_request(body: bytes, hashed: bytes, *, with_hash: bool = True) -> WebhookRequest:
    url = f"{URL}?bodySHA256={hashlib.sha256(hashed).hexdigest()}" if with_hash else URL
    signature = RequestValidator(TOKEN).compute_signature(url, {})
    return WebhookRequest("POST", url, {"content-type": "application/json", "x-twilio-signature": signature}, body)


def test_a_json_body_holds_by_its_hash_in_the_signed_url() -> None:
    body = '{"text": "café"}'.encode()
    _check(_json_request(body, body))


@pytest.mark.parametrize("body", [b'{"text": "b"}', b"", b"\xff"])
def test_an_altered_json_body_is_refused(body: bytes) -> None:
    with pytest.raises(SignatureInvalid):
        _check(_json_request(body, b'{"text": "a"}'))


def test_a_json_body_without_a_hash_in_the_url_proves_nothing() -> None:
    with pytest.raises(SignatureInvalid):
        _check(_json_request(b"{}", b"{}", with_hash=False))


def test_a_body_of_another_kind_is_not_twilios() -> None:
    with pytest.raises(UnsupportedContentType):
        _check(WebhookRequest("POST", URL, {**_signed(TEXT).headers, "content-type": "text/xml"}, b"<x/>"))


def test_a_shared_keys_signature_is_refused_with_advice_and_its_header_chooses_nothing() -> None:
    signature = RequestValidator(TOKEN).compute_signature(URL, TEXT, "HMAC_SHA256")
    settings = {"x-twilio-webhooks-signature-settings": "key=webhooks_sharedkey_1,algorithm=HMAC_SHA256"}
    with pytest.raises(SignatureInvalid) as refusal:
        _check(_request(TEXT, headers={"x-twilio-signature": signature, **settings}))
    assert "shared-key" in refusal.value.advice


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
    event = parse_inbound(_request([*pairs, ("Odd\x00", "x")]), account_sid=ACCOUNT)
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


# --- credentials ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("account_sid", "AC12"),
        ("auth_token", " "),
        ("from_number", "2025550188"),
        ("whatsapp_from", "whatsapp:2025550188"),
        ("messaging_service_sid", "MG1"),
        ("api_key_sid", "SK1"),
        ("api_key_secret", "alone"),
        ("colour", "red"),
    ],
)
def test_wrong_credentials_are_refused_by_the_keys_name_and_not_repeated(key: str, value: str) -> None:
    given = {"account_sid": ACCOUNT, "auth_token": TOKEN, key: value}
    with pytest.raises(ValidationError) as refusal:
        TwilioCredentials(**given)
    assert key in str(refusal.value)
    assert "input_value" not in str(refusal.value)


def test_whatsapp_goes_out_from_its_own_number_or_the_one_for_texts() -> None:
    given = {"account_sid": ACCOUNT, "auth_token": TOKEN, "from_number": "+12025550188"}
    assert TwilioCredentials(**given).whatsapp_sender == "+12025550188"
    assert TwilioCredentials(**given, whatsapp_from="whatsapp:+12025550199").whatsapp_sender == "+12025550199"


def test_credentials_do_not_show_their_secrets() -> None:
    assert TOKEN not in repr(CREDENTIALS) + str(CREDENTIALS)


def test_refusals_carry_no_part_of_the_request() -> None:
    for changes in ({"MessageSid": "SM-secret"}, {"AccountSid": "AC-secret"}):
        with pytest.raises(RequestRefused) as refusal:
            _inbound(**changes)
        assert "secret" not in str(refusal.value)
