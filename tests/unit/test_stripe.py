"""Stripe's signature, held to Stripe's own library and the cases of its test suite."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta

import pytest

from app.errors import MalformedEvent, SignatureInvalid, SignatureMissing
from app.integrations.doors.stripe import STRIPE, Credentials, parse, verify
from app.integrations.events import WebhookRequest

SECRET = "whsec_test_secret"
BODY = b"""{
  "id": "evt_test_webhook",
  "object": "event",
  "data": { "object": { "id": "rdr_123", "object": "terminal.reader" } }
}"""
KEYS = Credentials(signing_secret=SECRET)


@pytest.fixture(scope="module")
def library():
    import stripe

    return stripe


def header_of(
    library, body: bytes = BODY, *, stamp: int | None = None, secret: str = SECRET, scheme: str = "v1"
) -> str:
    stamp = int(time.time()) if stamp is None else stamp
    return f"t={stamp},{scheme}={library.WebhookSignature._compute_signature(f'{stamp}.{body.decode()}', secret)}"


def request(header: str, body: bytes = BODY) -> WebhookRequest:
    return WebhookRequest("POST", "https://v/x", {"stripe-signature": header} if header else {}, body)


def now() -> datetime:
    return datetime.now(UTC)


def test_what_stripes_library_signs_holds_and_what_we_simulate_its_library_accepts(library):
    verify(request(header_of(library)), KEYS, now=now())
    made = STRIPE.sample("invoice.paid", SECRET, now())
    event = library.Webhook.construct_event(made.body, made.headers["Stripe-Signature"], SECRET)
    assert event.type == "invoice.paid"


def test_while_a_secret_is_rolled_either_signature_is_enough(library):
    old, new = header_of(library), header_of(library, secret="whsec_the_next")
    both = f"{old},{new.partition(',')[2]},v0=6ffbb59b2300aae63f272406069a9788598b792a944a07aba816edb039989a39"
    verify(request(both), KEYS, now=now())
    verify(request(both), Credentials(signing_secret="whsec_the_next"), now=now())
    with pytest.raises(SignatureInvalid):
        verify(request(both), Credentials(signing_secret="whsec_of_nobody"), now=now())


def test_the_cases_stripes_library_refuses_are_refused(library):
    good = header_of(library)
    with pytest.raises(SignatureMissing):
        verify(request(""), KEYS, now=now())
    stamp = good.partition(",")[0]
    for header in (
        "i'm not even a real signature header",
        "bad_header",
        f"{stamp},v1=bad_signature",
        header_of(library, scheme="v0"),
        header_of(library, secret="whsec_another"),
        f"{good},{stamp}",
        good.partition(",")[2],
        good.replace("t=", "t=x"),
        "t=é,v1=\udcff",
    ):
        with pytest.raises(SignatureInvalid):
            verify(request(header), KEYS, now=now())
    with pytest.raises(SignatureInvalid):
        verify(request(good, BODY + b" "), KEYS, now=now())


def test_a_signature_is_good_for_five_minutes(library):
    header = header_of(library, stamp=1_700_000_000)
    then = datetime.fromtimestamp(1_700_000_000, UTC)
    verify(request(header), KEYS, now=then + timedelta(seconds=300))
    with pytest.raises(SignatureInvalid):
        verify(request(header), KEYS, now=then + timedelta(seconds=301))


def test_events_of_one_customer_share_a_lane_and_a_payments_client_secret_is_not_kept():
    about = {"id": "pi_1", "customer": "cus_9", "client_secret": "pi_1_secret_x", "amount": 1200}
    body = json.dumps(
        {"id": "evt_1", "type": "payment_intent.succeeded", "created": 1_700_000_000, "data": {"object": about}}
    )
    event = parse(request("", body.encode()))
    assert (event.event_key, event.type, event.lane_key) == ("evt_1", "payment_intent.succeeded", "stripe:cus_9")
    assert event.payload["data"]["object"] == {**about, "client_secret": "[scrubbed]"}
    assert event.occurred_at == datetime.fromtimestamp(1_700_000_000, UTC)


def test_an_event_about_an_object_alone_and_a_thin_one_have_lanes_too():
    whole = {"id": "evt_2", "type": "price.created", "data": {"object": {"id": "price_1"}}}
    thin = {
        "id": "evt_234",
        "object": "v2.core.event",
        "type": "v1.billing.meter.error_report_triggered",
        "created": "2022-02-15T00:27:45.330Z",
        "related_object": {"id": "mtr_1"},
    }
    assert parse(request("", json.dumps(whole).encode())).lane_key == "stripe:price_1"
    event = parse(request("", json.dumps(thin).encode()))
    assert (event.lane_key, event.occurred_at) == (
        "stripe:mtr_1",
        datetime(2022, 2, 15, 0, 27, 45, 330000, tzinfo=UTC),
    )
    with pytest.raises(MalformedEvent):
        parse(request("", BODY))
