"""Standard Webhooks, held to the vectors of its own libraries and to its Python library."""

from __future__ import annotations

import base64
import time
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import ValidationError
from standardwebhooks import Webhook

from app.errors import MalformedEvent, SignatureInvalid, SignatureMissing
from app.integrations import webhook_scheme
from app.integrations.doors.standard_webhooks import STANDARD_WEBHOOKS, Credentials, parse, verify
from app.integrations.events import WebhookRequest

# From the test suites of its JavaScript and Go libraries.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
MESSAGE_ID, BODY, THEN = "msg_p5jXN8AQM9LWM0D4loKWxJek", b'{"test": 2432232314}', 1614265330
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
ED25519_SEED = base64.b64decode("VEVTVFNJR05JTkdLRVlET05PVFVTRVRISVNGT1JBTlk=")
ED25519_SIGNATURE = "v1a,tQ9V2XOqn7jL/DQenEFpqIugdBVtiMmER5mhSkXBNwM0mkATuDe6KYYUuxqtaiHeYGb7KaaBRdM5WqyeFiL8Ag=="
SOMETHING_ELSE = "v1,Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc="
NOW = datetime.fromtimestamp(THEN, UTC)


def message(body: bytes = BODY, *, prefix: str = "webhook-", **headers: str) -> WebhookRequest:
    told = {"id": MESSAGE_ID, "timestamp": str(THEN), "signature": SIGNATURE, **headers}
    return WebhookRequest("POST", "https://v/x", {prefix + name: value for name, value in told.items() if value}, body)


def test_the_published_signature_holds_with_and_without_the_secrets_prefix_and_under_svixs_names():
    for secret in (SECRET, SECRET.removeprefix("whsec_")):
        for prefix in ("webhook-", "svix-"):
            verify(message(prefix=prefix), Credentials(signing_secret=secret), now=NOW)
            with pytest.raises(SignatureInvalid):
                verify(message(BODY + b" ", prefix=prefix), Credentials(signing_secret=secret), now=NOW)


def test_the_published_ed25519_signature_holds_for_its_public_key_alone():
    public = Ed25519PrivateKey.from_private_bytes(ED25519_SEED).public_key()
    key = "whpk_" + base64.b64encode(public.public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()
    request = message(signature=ED25519_SIGNATURE)
    verify(request, Credentials(public_key=key), now=NOW)
    with pytest.raises(SignatureInvalid):
        verify(request, Credentials(signing_secret=SECRET), now=NOW)
    with pytest.raises(SignatureInvalid):
        verify(message(), Credentials(public_key=key), now=NOW)


def test_one_of_several_signatures_is_enough_and_another_version_counts_for_nothing():
    several = f"{SOMETHING_ELSE} v2,{SIGNATURE[3:]} nonsense {SIGNATURE} {SOMETHING_ELSE}"
    verify(message(signature=several), Credentials(signing_secret=SECRET), now=NOW)
    with pytest.raises(SignatureInvalid):
        verify(message(signature=f"{SOMETHING_ELSE} v2,{SIGNATURE[3:]}"), Credentials(signing_secret=SECRET), now=NOW)


@pytest.mark.parametrize("changed", ["id", "timestamp", "signature"])
def test_what_is_missing_or_altered_is_refused(changed):
    keys = Credentials(signing_secret=SECRET)
    with pytest.raises(SignatureMissing):
        verify(message(**{changed: ""}), keys, now=NOW)
    for strange in ("hello", "v1,", "v1,g0hM9", "é\udcff", "\x00", f"{THEN}.5", "-1", "9" * 400):
        with pytest.raises((SignatureInvalid, SignatureMissing)):
            verify(message(**{changed: strange}), keys, now=NOW)
    with pytest.raises(SignatureInvalid):
        verify(message(BODY + b" "), keys, now=NOW)


@pytest.mark.parametrize("seconds", [-301, 301])
def test_a_signature_is_good_for_five_minutes_either_way(seconds):
    verify(message(), Credentials(signing_secret=SECRET), now=NOW + timedelta(seconds=seconds - seconds // 301))
    with pytest.raises(SignatureInvalid):
        verify(message(), Credentials(signing_secret=SECRET), now=NOW + timedelta(seconds=seconds))


def test_what_we_sign_the_official_library_accepts_and_what_it_signs_we_accept():
    key, stamp = webhook_scheme.new_secret(), str(int(time.time()))
    content = webhook_scheme.signed_content(b"msg_1", stamp.encode(), BODY)
    signature = webhook_scheme.sign(webhook_scheme.read_secret(key), content)
    headers = {"webhook-id": "msg_1", "webhook-timestamp": stamp, "webhook-signature": signature}
    assert Webhook(key).verify(BODY, headers) == {"test": 2432232314}
    theirs = Webhook(key).sign("msg_2", datetime.fromtimestamp(int(stamp), UTC), BODY.decode())
    request = message(id="msg_2", timestamp=stamp, signature=theirs)
    verify(request, Credentials(signing_secret=key), now=datetime.now(UTC))
    made = STANDARD_WEBHOOKS.sample("invoice.paid", key, datetime.now(UTC))
    assert Webhook(key).verify(made.body, made.headers)["type"] == "invoice.paid"


@pytest.mark.parametrize(
    "wrong", [{}, {"signing_secret": "whsec_!"}, {"signing_secret": "abcd"}, {"public_key": "YWJj"}]
)
def test_a_secret_that_cannot_be_one_is_refused_when_it_is_set(wrong):
    with pytest.raises(ValidationError) as refused:
        Credentials(**wrong)
    assert "whsec_!" not in str(refused.value)


def test_an_event_is_told_by_the_senders_id_and_its_own_type_and_time():
    event = parse(
        message(b'{"type":"invoice.paid","timestamp":"2026-11-25T10:00:00+01:00","data":{"nul":"a\\u0000b"}}')
    )
    assert (event.type, event.event_key, event.lane_key) == ("invoice.paid", MESSAGE_ID, "")
    assert event.occurred_at == datetime(2026, 11, 25, 9, tzinfo=UTC)
    assert event.payload["data"] == {"nul": "a\ufffdb"}
    assert parse(message()).type == "message"
    for body in (b"", b"no", b"[1]"):
        with pytest.raises(MalformedEvent):
            parse(message(body))
