"""Cal.com: its signature over the body, and what makes two of its posts the same one."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from app.errors import MalformedEvent, SignatureInvalid, SignatureMissing
from app.integrations.doors.cal_com import Credentials, parse, verify
from app.integrations.events import WebhookRequest

# The example of its documentation (shortened), signed as its `createWebhookSignature` does; the value is openssl's:
#   printf '%s' "$BODY" | openssl dgst -sha256 -hmac "a secret of Cal.com"
BODY = (
    b'{"triggerEvent":"BOOKING_CREATED","createdAt":"2023-05-24T09:30:00.538Z","payload":{"type":"60min",'
    b'"startTime":"2023-05-25T09:30:00Z","endTime":"2023-05-25T10:30:00Z","uid":"bFJeNb2uX8ANpT3JL5EfXw",'
    b'"bookingId":91,"status":"ACCEPTED"}}'
)
SIGNATURE = "93d03198273e6cb50b212e241411946dc34a8e91d26a513f90f01bd3d481dbe3"
KEYS = Credentials(signing_secret="a secret of Cal.com")
NOW = datetime(2026, 11, 25, tzinfo=UTC)


def request(body: bytes = BODY, signature: str = SIGNATURE) -> WebhookRequest:
    return WebhookRequest("POST", "https://v/x", {"x-cal-signature-256": signature} if signature else {}, body)


def post(trigger: str, **payload: object) -> WebhookRequest:
    said = {"triggerEvent": trigger, "createdAt": "2023-05-24T09:31:00.000Z", "payload": payload}
    return request(json.dumps(said).encode())


def test_its_signature_holds_for_this_body_and_secret_alone():
    verify(request(), KEYS, now=NOW)
    for none in ("", "no-secret-provided"):
        with pytest.raises(SignatureMissing):
            verify(request(signature=none), KEYS, now=NOW)
    for wrong in (SIGNATURE[:-1], SIGNATURE.upper(), "sha256=" + SIGNATURE, "é", "\udcff"):
        with pytest.raises(SignatureInvalid):
            verify(request(signature=wrong), KEYS, now=NOW)
    with pytest.raises(SignatureInvalid):
        verify(request(BODY + b"\n"), KEYS, now=NOW)
    with pytest.raises(SignatureInvalid):
        verify(request(), Credentials(signing_secret="another one"), now=NOW)


def test_a_booking_is_told_by_trigger_booking_and_time_and_has_a_lane():
    event = parse(request())
    assert (event.type, event.lane_key) == ("BOOKING_CREATED", "booking:bFJeNb2uX8ANpT3JL5EfXw")
    assert event.event_key == "BOOKING_CREATED:bFJeNb2uX8ANpT3JL5EfXw:2023-05-24T09:30:00.538Z"
    assert event.occurred_at == datetime(2023, 5, 24, 9, 30, 0, 538000, tzinfo=UTC)
    cancelled = parse(post("BOOKING_CANCELLED", uid="bFJeNb2uX8ANpT3JL5EfXw"))
    assert cancelled.lane_key == event.lane_key
    assert cancelled.event_key != event.event_key
    assert parse(post("BOOKING_NO_SHOW_UPDATED", bookingUid="bFJeNb2uX8ANpT3JL5EfXw")).lane_key == event.lane_key


def test_what_is_about_no_booking_is_told_by_its_body_and_what_names_no_trigger_is_refused():
    one, two = post("OOO_CREATED", oooEntry={"id": 1}), post("OOO_CREATED", oooEntry={"id": 2})
    assert parse(one).event_key == parse(one).event_key != parse(two).event_key
    assert parse(one).lane_key == ""
    for body in (b"", b"no", b"[]", b"{}", b'{"triggerEvent":7}'):
        with pytest.raises(MalformedEvent):
            parse(request(body))
