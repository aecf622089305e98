"""Who signed a webhook: Twilio's signature and its traps; and whose credentials check it."""

from __future__ import annotations

import hashlib

import pytest
from pydantic import ValidationError
from twilio.request_validator import RequestValidator

from app.errors import SignatureInvalid, SignatureMissing, UnsupportedContentType
from app.integrations.events import WebhookRequest
from app.integrations.twilio import TwilioCredentials, verify
from tests.twilio_webhooks import ACCOUNT, CREDENTIALS, NOW, STATUS_URL, TEXT, TOKEN, URL, form_request, signed
from tests.verdicts import holds


def _check(request: WebhookRequest) -> None:
    verify(request, CREDENTIALS, now=NOW)


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
    assert holds(lambda: _check(signed(TEXT, url=url)))


def test_repeated_blank_and_padded_parameters_are_signed_as_they_were_sent() -> None:
    more = [("Tag", "b"), ("Tag", "a"), ("Tag", "b"), ("Blank", ""), ("Body2", "  x & é \n")]
    assert holds(lambda: _check(signed([*TEXT.items(), *more])))


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
    assert holds(lambda: _check(signed(TEXT, url=url, signed_url=signed_url)))


@pytest.mark.parametrize("name", sorted(TEXT))
def test_any_parameter_altered_or_dropped_breaks_the_signature(name: str) -> None:
    good = signed(TEXT)
    for params in ({**TEXT, name: TEXT[name] + "x"}, {n: v for n, v in TEXT.items() if n != name}):
        with pytest.raises(SignatureInvalid):
            _check(form_request(params, headers=good.headers))


@pytest.mark.parametrize(
    "request_",
    [
        signed(TEXT, signed_url=URL + "x"),
        signed(TEXT, signed_url=URL.replace("https", "http")),
        signed(TEXT, token="another token"),
        signed(TEXT, url=URL + "?a=1", signed_url=URL),
        signed(TEXT, url="https://desk.example.com/José", signed_url="https://desk.example.com/Jos%C3%A9"),
    ],
    ids=["path", "scheme", "token", "query", "unescaped"],
)
def test_another_url_or_token_does_not_hold(request_: WebhookRequest) -> None:
    with pytest.raises(SignatureInvalid):
        _check(request_)


@pytest.mark.parametrize("headers", [{}, {"x-twilio-signature": ""}, {"x-twilio-signature": "  "}])
def test_a_missing_signature_is_refused_and_never_an_error_of_ours(headers: dict[str, str]) -> None:
    with pytest.raises(SignatureMissing):
        _check(form_request(TEXT, headers=headers))


@pytest.mark.parametrize("value", ["x", "é" * 28, "=" * 28, "\x00", "a" * 10_000, "null"])
def test_a_malformed_signature_is_refused_and_never_an_error_of_ours(value: str) -> None:
    with pytest.raises(SignatureInvalid):
        _check(form_request(TEXT, headers={"x-twilio-signature": value}))


@pytest.mark.parametrize(
    "body",
    [b"\xff\xfe=%FF", b"&".join(b"a=1" for _ in range(5_000)), b"=", b"", b"%", b"{"],
    ids=["bytes", "many", "nameless", "empty", "percent", "brace"],
)
def test_a_body_that_was_never_signed_is_refused_whatever_it_is(body: bytes) -> None:
    headers = {**signed(TEXT).headers}
    with pytest.raises(SignatureInvalid):
        _check(WebhookRequest("POST", URL, headers, body))


def test_a_url_that_cannot_be_is_refused() -> None:
    with pytest.raises(SignatureInvalid):
        _check(WebhookRequest("POST", "https://desk.example.com:99999999/x", signed(TEXT).headers, b"a=1"))


def _json_request(body: bytes, hashed: bytes, *, with_hash: bool = True) -> WebhookRequest:
    url = f"{URL}?bodySHA256={hashlib.sha256(hashed).hexdigest()}" if with_hash else URL
    signature = RequestValidator(TOKEN).compute_signature(url, {})
    return WebhookRequest("POST", url, {"content-type": "application/json", "x-twilio-signature": signature}, body)


def test_a_json_body_holds_by_its_hash_in_the_signed_url() -> None:
    body = '{"text": "café"}'.encode()
    assert holds(lambda: _check(_json_request(body, body)))


@pytest.mark.parametrize("body", [b'{"text": "b"}', b"", b"\xff"])
def test_an_altered_json_body_is_refused(body: bytes) -> None:
    with pytest.raises(SignatureInvalid):
        _check(_json_request(body, b'{"text": "a"}'))


def test_a_json_body_without_a_hash_in_the_url_proves_nothing() -> None:
    with pytest.raises(SignatureInvalid):
        _check(_json_request(b"{}", b"{}", with_hash=False))


def test_a_body_of_another_kind_is_not_twilios() -> None:
    with pytest.raises(UnsupportedContentType):
        _check(WebhookRequest("POST", URL, {**signed(TEXT).headers, "content-type": "text/xml"}, b"<x/>"))


def test_a_shared_keys_signature_is_refused_with_advice_and_its_header_chooses_nothing() -> None:
    signature = RequestValidator(TOKEN).compute_signature(URL, TEXT, "HMAC_SHA256")
    settings = {"x-twilio-webhooks-signature-settings": "key=webhooks_sharedkey_1,algorithm=HMAC_SHA256"}
    with pytest.raises(SignatureInvalid) as refusal:
        _check(form_request(TEXT, headers={"x-twilio-signature": signature, **settings}))
    assert "shared-key" in refusal.value.advice


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
