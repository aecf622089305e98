"""Who may speak as Vapi: every proof alone, together, wrong, stale, malformed and missing."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from app.errors import SignatureInvalid, SignatureMissing
from app.integrations.events import WebhookRequest
from app.integrations.vapi import VapiCredentials, verify
from tests.verdicts import holds

NOW = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)
BODY = b'{"message": {"type": "hang", "note": "{timestamp} is not a token here"}}'
SECRET = "open-sesame"
STAMP = str(int(NOW.timestamp()))
URL = "https://desk.example/webhooks/vapi/abc?x=1"


def credentials(**given: str) -> VapiCredentials:
    return VapiCredentials.model_validate({"webhook_secret": SECRET, **given})


def request(body: bytes = BODY, **headers: str) -> WebhookRequest:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return WebhookRequest(method="POST", url=URL, headers=named, body=body)


def sign(
    covered: bytes | None = None, *, key: bytes = SECRET.encode(), algorithm: Callable = hashlib.sha256
) -> hmac.HMAC:
    return hmac.new(key, STAMP.encode() + b"." + BODY if covered is None else covered, algorithm)


class TestWithoutHmacKeys:
    @pytest.mark.parametrize(
        "headers",
        [
            {"x_vapi_secret": SECRET},
            {"authorization": f"Bearer {SECRET}"},
            {"authorization": f"bearer {SECRET}"},
            {"x_signature": sign().hexdigest(), "x_timestamp": STAMP},
            {"x_vapi_secret": SECRET, "authorization": f"Bearer {SECRET}"},
        ],
    )
    def test_any_proof_that_holds_is_enough(self, headers: dict[str, str]) -> None:
        assert holds(lambda: verify(request(**headers), credentials(), now=NOW))

    def test_without_any_proof_the_signature_is_missing(self) -> None:
        with pytest.raises(SignatureMissing):
            verify(request(x_timestamp=STAMP), credentials(), now=NOW)

    @pytest.mark.parametrize(
        "headers",
        [
            {"x_vapi_secret": "open-sesamE"},
            {"x_vapi_secret": ""},
            {"x_vapi_secret": "ключ"},
            {"x_vapi_secret": "\xff\xfe"},
            {"x_vapi_secret": "\ud800"},
            {"authorization": "Bearer wrong"},
            {"authorization": "Bearer"},
            {"authorization": SECRET},
            {"authorization": f"Basic {SECRET}"},
            {"x_signature": "nonsense", "x_timestamp": STAMP},
            {"x_signature": "ы", "x_timestamp": STAMP},
            {"x_vapi_secret": SECRET, "authorization": "Bearer wrong"},
            {"authorization": f"Bearer {SECRET}", "x_signature": "00", "x_timestamp": STAMP},
        ],
    )
    def test_whatever_is_presented_must_hold(self, headers: dict[str, str]) -> None:
        with pytest.raises(SignatureInvalid):
            verify(request(**headers), credentials(), now=NOW)

    def test_a_secret_beyond_ascii_matches_the_bytes_on_the_wire(self) -> None:
        as_wsgi_hands_it_over = "schlüssel".encode().decode("latin-1")
        beyond = credentials(webhook_secret="schlüssel")
        assert holds(lambda: verify(request(x_vapi_secret=as_wsgi_hands_it_over), beyond, now=NOW))


class TestHmac:
    def test_one_altered_byte_is_refused(self) -> None:
        altered = BODY.replace(b"hang", b"hanG")
        with pytest.raises(SignatureInvalid):
            verify(request(altered, x_signature=sign().hexdigest(), x_timestamp=STAMP), credentials(), now=NOW)

    @pytest.mark.parametrize("unit", [1, 1000])
    @pytest.mark.parametrize(("age", "holds"), [(0, True), (299, True), (-299, True), (301, False), (-301, False)])
    def test_a_signature_holds_for_300_seconds_either_way_in_seconds_and_milliseconds(
        self, age: int, holds: bool, unit: int
    ) -> None:
        stamp = str(int((NOW - timedelta(seconds=age)).timestamp()) * unit)
        signed = request(x_signature=sign(stamp.encode() + b"." + BODY).hexdigest(), x_timestamp=stamp)
        if holds:
            verify(signed, credentials(), now=NOW)
        else:
            with pytest.raises(SignatureInvalid):
                verify(signed, credentials(), now=NOW)

    @pytest.mark.parametrize("stamp", ["nan", "inf", "-1", "1e9", "٣", "9" * 400, "2026-11-24T09:30:00Z", "\ud800"])
    def test_a_strange_timestamp_is_refused_and_never_an_error(self, stamp: str) -> None:
        with pytest.raises(SignatureInvalid):
            verify(request(x_signature=sign().hexdigest(), x_timestamp=stamp), credentials(), now=NOW)

    def test_a_signature_without_its_timestamp_is_no_proof(self) -> None:
        with pytest.raises(SignatureMissing):
            verify(request(x_signature=sign().hexdigest()), credentials(), now=NOW)

    @pytest.mark.parametrize(
        "given",
        [
            {"hmac_secret": "other"},
            {"hmac_header": "x-signature"},
            {"hmac_algorithm": "sha256"},
            {"hmac_prefix": ""},
            {"hmac_include_timestamp": "true"},
        ],
    )
    def test_any_hmac_key_makes_the_plain_secret_worthless(self, given: dict[str, str]) -> None:
        with pytest.raises(SignatureMissing):
            verify(request(x_vapi_secret=SECRET, authorization=f"Bearer {SECRET}"), credentials(**given), now=NOW)

    def test_header_names_format_algorithm_and_encoding_are_as_configured(self) -> None:
        configured = credentials(
            hmac_secret="k2",
            hmac_signature_header="X-Vapi-Signature",
            hmac_timestamp_header="X-Sent-At",
            hmac_format="{method} {url} {timestamp} {body}",
            hmac_algorithm="SHA512",
            hmac_signature_encoding="base64",
            hmac_signature_prefix="v1,",
        )
        covered = f"POST {URL} {STAMP} ".encode() + BODY
        digest = sign(covered, key=b"k2", algorithm=hashlib.sha512).digest()
        good = "v1," + base64.b64encode(digest).decode()
        verify(request(x_vapi_signature=good, x_sent_at=STAMP), configured, now=NOW)
        verify(request(x_vapi_signature=f"v1,AAAA {good}", x_sent_at=STAMP), configured, now=NOW)
        with pytest.raises(SignatureInvalid):
            verify(request(x_vapi_signature=good.removeprefix("v1,"), x_sent_at=STAMP), configured, now=NOW)

    def test_a_message_id_can_be_covered_with_a_base64_key(self) -> None:
        key = bytes(range(24))
        configured = credentials(
            hmac_secret="whsec_" + base64.b64encode(key).decode(),
            hmac_secret_is_base64="true",
            hmac_message_id_header="webhook-id",
            hmac_payload_format="{svix-id}.{timestamp}.{body}",
        )
        signature = sign(b"msg_1." + STAMP.encode() + b"." + BODY, key=key).hexdigest()
        verify(request(x_signature=signature, x_timestamp=STAMP, webhook_id="msg_1"), configured, now=NOW)
        with pytest.raises(SignatureInvalid):
            verify(request(x_signature=signature, x_timestamp=STAMP, webhook_id="msg_2"), configured, now=NOW)
        with pytest.raises(SignatureMissing):
            verify(request(x_signature=signature, x_timestamp=STAMP), configured, now=NOW)

    def test_a_signature_may_cover_the_body_alone(self) -> None:
        configured = credentials(hmac_include_timestamp="false", hmac_algorithm="sha1")
        signature = sign(BODY, algorithm=hashlib.sha1).hexdigest().upper()
        assert holds(lambda: verify(request(x_signature=signature), configured, now=NOW))


class TestCredentials:
    @pytest.mark.parametrize(
        "given",
        [
            {},
            {"webhook_secret": ""},
            {"webhook_secret": "s", "unknown": "x"},
            {"webhook_secret": "s", "hmac_algorithm": "md5"},
            {"webhook_secret": "s", "hmac_encoding": "base32"},
            {"webhook_secret": "s", "hmac_header": "x signature"},
            {"webhook_secret": "s", "hmac_payload_format": "{timestamp}"},
            {"webhook_secret": "s", "hmac_payload_format": "{timestamp}.{body}", "hmac_include_timestamp": "false"},
            {"webhook_secret": "s", "hmac_payload_format": "{body}", "hmac_include_timestamp": "true"},
            {"webhook_secret": "not base64!", "hmac_secret_is_base64": "true"},
            {"webhook_secret": "s", "hmac_include_timestamp": "perhaps"},
        ],
    )
    def test_what_cannot_work_is_refused_when_it_is_set(self, given: dict[str, str]) -> None:
        with pytest.raises(ValidationError):
            VapiCredentials.model_validate(given)

    def test_no_secret_shows_in_errors_or_representations(self) -> None:
        with pytest.raises(ValidationError) as refused:
            VapiCredentials.model_validate({"webhook_secret": "tell-nobody", "nonsense": "tell-nobody-either"})
        kept = credentials(webhook_secret="tell-nobody", hmac_secret="tell-nobody")
        assert "tell-nobody" not in f"{refused.value}{kept!r}{kept.hmac!r}"

    def test_an_hmac_secret_alone_is_enough(self) -> None:
        alone = VapiCredentials.model_validate({"hmac_secret": "k"})
        signature = sign(key=b"k").hexdigest()
        assert holds(lambda: verify(request(x_signature=signature, x_timestamp=STAMP), alone, now=NOW))
