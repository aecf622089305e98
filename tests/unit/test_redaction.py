"""What may be read in a line, and what may not; each case is a text as a library would write it."""

from __future__ import annotations

import base64
import logging
import secrets
import time

import pytest
from cryptography.fernet import Fernet

from app.config import Settings
from app.observability.logging import configure_logging, redact_line
from app.observability.redaction import LONGEST, redact, redact_value

NUMBER = "+4915233344455"
FERNET_KEY = Fernet.generate_key().decode()
SEALED = Fernet(FERNET_KEY).encrypt(b"a credential").decode()
AUTH_TOKEN = secrets.token_hex(16)
HIDDEN_TEXTS = {
    "a number": (NUMBER, NUMBER),
    "a number in a sentence": (f"the number {NUMBER}, is wrong", NUMBER),
    "a number with spaces": ("+49 152 333 444 55", "333 444"),
    "a number in brackets": ("+1 (415) 555-0123", "555-0123"),
    "a number in a query": ("To=%2B4915233344455&x=1", "4915233344455"),
    "a WhatsApp address": (f"whatsapp:{NUMBER}", "4915233344455"),
    "a WhatsApp address without a plus": ("whatsapp:4915233344455", "4915233344455"),
    "an e-mail address": ("for jane.roe+x@mail.example.org only", "jane.roe"),
    "a calendar": ("calendars/0f3c@group.calendar.google.com/events", "0f3c@"),
    "a bearer token": ("Authorization: Bearer 0123456789abcdefXYZ", "0123456789abcdefXYZ"),
    "basic authentication": ("Basic " + base64.b64encode(b"user:password").decode(), "dXNlcjpw"),
    "a Slack token": ("xoxb-123-456-AbCdEf", "AbCdEf"),
    "a Slack webhook": ("https://hooks.slack.com/services/T0/B0/abcd", "abcd"),
    "an auth token": (f"signed with {AUTH_TOKEN}", AUTH_TOKEN),
    "a Fernet key": (f"key {FERNET_KEY} is old", FERNET_KEY),
    "what a Fernet key sealed": (f"cannot open {SEALED}", SEALED),
    "an API key": ("vd_a1B2c3D4e5F6", "a1B2c3D4e5F6"),
    "an endpoint token": ("POST /webhooks/vapi/Zx_9-token HTTP/1.1", "Zx_9-token"),
    "an endpoint token before more": ("/webhooks/twilio/Zx_9-token/status", "Zx_9-token"),
    "a query": ("GET /webhooks/twilio/t/status?Body=see+you+at+nine", "see+you"),
    "a password in a URL": ("postgresql://app:hunter22@db/voicedesk", "hunter22"),
    "a Sentry DSN": ("https://0123456789@o1.ingest.example/2", "0123456789@"),
    "a password in a DSN": ("host=db password=hunter22 user=app", "hunter22"),
    "a secret in JSON": ('{"client_secret": "hunter22"}', "hunter22"),
    "a header": ("X-Vapi-Secret: hunter22", "hunter22"),
    "a JWT": ("eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.c2ln", "eyJzdWIi"),
    "a private key": ("-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----", "MIIE"),
    "a statement": ("failed\n[SQL: INSERT INTO texts]\n[parameters: {'body': 'see you'}]", "see you"),
    "a row": ("duplicate key\nDETAIL:  Key (address)=(Jane Roe) exists", "Jane Roe"),
}
READABLE = [
    "550e8400-e29b-41d4-a716-446655440000",
    "AC" + "0123456789abcdef" * 2,
    "SM" + "0123456789abcdef" * 2,
    "delivery 1234567890123 took 250 ms",
    "2026-11-24T03:31:03.123456+00:00",
    "2026-11-24 03:31:03 +0000",
    "webhook.accepted",
    "req-0123456789abcdef",
    "worker:a-host:12345",
    "delivery.py:130",
    "Worker 0123456789abcdef0123456789abcdef: listening",
    "the token bucket of this account is empty",
    "1.5e+10",
]


@pytest.mark.parametrize(("text", "hidden"), HIDDEN_TEXTS.values(), ids=HIDDEN_TEXTS.keys())
def test_what_must_not_be_said_is_masked(text: str, hidden: str) -> None:
    assert hidden in text
    assert hidden not in redact(text)


@pytest.mark.parametrize("text", READABLE)
def test_ids_times_and_durations_stay_readable(text: str) -> None:
    assert redact(text) == text


def test_what_is_masked_is_masked_again_without_harm() -> None:
    once = [redact(text) for text, _ in HIDDEN_TEXTS.values()]
    assert [redact(text) for text in once] == once


def test_fields_are_hidden_by_their_names_at_any_depth() -> None:
    said = redact_value({"call": [{"transcript": "I need a haircut", "id": "c-1"}], "Body": "see you", "attempt": 2})
    assert said == {"call": [{"transcript": "[hidden]", "id": "c-1"}], "Body": "[hidden]", "attempt": 2}


def test_numbers_are_masked_in_whatever_holds_them() -> None:
    said = redact_value({NUMBER: (NUMBER, {NUMBER}, OSError(NUMBER), NUMBER.encode())})
    assert NUMBER not in str(said)


def test_a_structure_without_an_end_is_hidden() -> None:
    endless: dict[str, object] = {}
    endless["again"] = endless
    assert "[hidden]" in str(redact_value(endless))


def test_a_text_of_any_length_takes_bounded_time_and_shows_no_more_than_its_beginning() -> None:
    said = redact("a" * 1_000_000 + NUMBER)
    assert len(said) < LONGEST + 20


@pytest.mark.parametrize(
    "piece",
    ["a-", "a_", "a.", "a+", "a", "/a", "a@", "/webhooks/a", "1//", "a://", "+1 ", "token=", "eyJaaaaaaaa.", "[SQL"],
)
def test_no_text_takes_long_whatever_somebody_made_it_of(piece):
    text = (piece * LONGEST)[:LONGEST]
    began = time.thread_time()
    redact(text)
    assert time.thread_time() - began < 0.08


def test_a_line_keeps_its_request_id_even_if_it_looks_like_a_secret() -> None:
    line = redact_line(None, "info", {"request_id": AUTH_TOKEN, "event": AUTH_TOKEN, "duration_ms": 12})
    assert line["request_id"] == AUTH_TOKEN
    assert line["event"] == "[secret]"
    assert line["duration_ms"] == 12


def test_libraries_known_to_repeat_what_they_sent_are_silent() -> None:
    configure_logging(Settings(database_url="postgresql://nowhere", credentials_keys=[FERNET_KEY]))
    for name in ("twilio.http_client", "urllib3.connectionpool", "slack_sdk.web.base_client"):
        assert not logging.getLogger(name).isEnabledFor(logging.WARNING)
