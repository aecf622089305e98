"""Meta's WhatsApp Cloud API: its signature, its greeting, and what makes two posts the same one."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from app.errors import MalformedEvent, SignatureInvalid, SignatureMissing
from app.integrations.doors.whatsapp_cloud import Credentials, greet, parse, verify
from app.integrations.events import WebhookRequest

# The scheme of X-Hub-Signature-256 is the one GitHub publishes this vector for ("Validating webhook deliveries").
SECRET = "It's a Secret to Everybody"
SIGNATURE = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
KEYS = Credentials(app_secret=SECRET, verify_token="meatyhamhock")
NOW = datetime(2026, 11, 25, tzinfo=UTC)


def request(body: bytes, signature: str = "") -> WebhookRequest:
    return WebhookRequest("POST", "https://v/x", {"x-hub-signature-256": signature} if signature else {}, body)


def post(*values: dict, field: str = "messages", waba: str = "8856996819413533") -> bytes:
    """As Meta's documentation shows it."""
    common = {
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": "16505553333", "phone_number_id": "27681414235104944"},
    }
    changes = [{"value": {**common, **value}, "field": field} for value in values]
    return json.dumps({"object": "whatsapp_business_account", "entry": [{"id": waba, "changes": changes}]}).encode()


def message(number: int, sender: str = "16315551234") -> dict:
    return {
        "id": f"wamid.{number}",
        "from": sender,
        "timestamp": str(1603059201 + number),
        "type": "text",
        "text": {"body": "Hello this is an answer"},
    }


def test_the_published_signature_holds_and_no_other():
    verify(request(b"Hello, World!", SIGNATURE), KEYS, now=NOW)
    with pytest.raises(SignatureMissing):
        verify(request(b"Hello, World!"), KEYS, now=NOW)
    for wrong in (SIGNATURE[:-1] + "8", SIGNATURE[7:], SIGNATURE.upper(), "sha1=1", "é", "\udcff"):
        with pytest.raises(SignatureInvalid):
            verify(request(b"Hello, World!", wrong), KEYS, now=NOW)
    with pytest.raises(SignatureInvalid):
        verify(request(b"Hello, World?", SIGNATURE), KEYS, now=NOW)


def test_the_greeting_of_metas_documentation_is_answered_with_its_challenge():
    query = {"hub.mode": "subscribe", "hub.challenge": "1158201444", "hub.verify_token": "meatyhamhock"}
    assert greet(query, KEYS) == "1158201444"
    for wrong, refusal in (
        ({"hub.verify_token": "guessed"}, SignatureInvalid),
        ({"hub.verify_token": "\udcff"}, SignatureInvalid),
        ({"hub.verify_token": ""}, SignatureMissing),
        ({"hub.mode": "unsubscribe"}, SignatureMissing),
        ({"hub.challenge": "<script>"}, MalformedEvent),
    ):
        with pytest.raises(refusal):
            greet({**query, **wrong}, KEYS)


def test_a_message_is_told_by_its_id_and_its_lane_shows_no_number():
    event = parse(request(post({"messages": [message(1)]})))
    assert (event.type, event.event_key) == ("message.inbound", "wamid.1")
    assert event.occurred_at == datetime.fromtimestamp(1603059202, UTC)
    assert "16315551234" not in event.lane_key
    assert event.lane_key == parse(request(post({"messages": [message(2)]}))).lane_key
    assert event.lane_key != parse(request(post({"messages": [message(3, "16315550000")]}))).lane_key


def test_news_of_one_text_are_as_many_events_as_there_are_stages_in_the_lane_of_its_conversation():
    said = [
        parse(request(post({"statuses": [{"id": "wamid.1", "recipient_id": "16315551234", "status": status}]})))
        for status in ("sent", "delivered", "delivered")
    ]
    assert [event.event_key for event in said] == ["wamid.1:sent", "wamid.1:delivered", "wamid.1:delivered"]
    assert {event.type for event in said} == {"message.status"}
    assert {event.lane_key for event in said} == {parse(request(post({"messages": [message(1)]}))).lane_key}


def test_several_in_one_post_are_one_event_that_is_the_same_in_any_order():
    one, two = {"messages": [message(1), message(2)]}, {"messages": [message(2), message(1)]}
    assert parse(request(post(one))).event_key == parse(request(post(two))).event_key
    both = parse(request(post({"messages": [message(1)]}, {"statuses": [{"id": "wamid.9", "status": "read"}]})))
    assert both.type == "several"
    assert both.lane_key.startswith("account:")


def test_a_change_of_the_account_is_named_by_its_field_and_what_is_of_no_account_is_refused():
    event = parse(request(post({"event": "VERIFIED_ACCOUNT"}, field="account_update")))
    assert event.type == "account_update"
    for body in (
        b"{}",
        b'{"object":"page","entry":[]}',
        post(),
        b"no",
        b'{"object":"whatsapp_business_account","entry":7}',
    ):
        with pytest.raises(MalformedEvent):
            parse(request(body))
