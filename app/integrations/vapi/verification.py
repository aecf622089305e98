"""Who sent a message: Vapi's three ways to prove it (docs.vapi.ai, "Server authentication").

Owns the check and nothing else; runs on the raw bytes, before anything is parsed. Every comparison
is constant in time, and no header, however strange, may end in anything but a refusal.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from datetime import datetime

from app.errors import SignatureInvalid, SignatureMissing
from app.integrations.events import WebhookRequest
from app.integrations.vapi.credentials import HmacPlan, VapiCredentials

MOST_SKEW_SECONDS = 300
MILLISECONDS_FROM = 1e11  # Vapi does not say whether its timestamp is in s or ms; 1e11 s is the year 5138
PLAIN_HEADER = "x-vapi-secret"

_TOKENS = re.compile(r"(\{(?:body|timestamp|method|url|svix-id)\})")
_TIMESTAMP = re.compile(r"[0-9]{1,16}(\.[0-9]{1,9})?")


def verify(request: WebhookRequest, credentials: VapiCredentials, *, now: datetime) -> None:
    """Raise unless the request proves that Vapi sent it for these credentials.

    With any ``hmac_*`` key set only that signature counts. Otherwise one of the plain secret, the
    bearer token and a signature of Vapi's default form is enough, and whatever of them is presented
    must hold. Raises SignatureMissing when there is no proof, SignatureInvalid when one is wrong,
    malformed, or signed more than 300 s from ``now``.
    """
    plan = credentials.required_hmac
    if plan is not None:
        _check_hmac(request, plan, now)
        return
    assert credentials.webhook_secret is not None
    secret = credentials.webhook_secret.get_secret_value()
    presented = 0
    if PLAIN_HEADER in request.headers:
        _check_equal(request.headers[PLAIN_HEADER], secret)
        presented += 1
    if "authorization" in request.headers:
        scheme, _, token = request.headers["authorization"].strip().partition(" ")
        if scheme.lower() != "bearer":
            raise SignatureInvalid
        _check_equal(token.strip(), secret)
        presented += 1
    if credentials.hmac.header in request.headers:
        _check_hmac(request, credentials.hmac, now)
        presented += 1
    if not presented:
        raise SignatureMissing


def _check_equal(presented: str, secret: str) -> None:
    if not hmac.compare_digest(_wire(presented), secret.encode()):
        raise SignatureInvalid


def _check_hmac(request: WebhookRequest, plan: HmacPlan, now: datetime) -> None:
    signature = request.headers.get(plan.header, "").strip()
    if not signature:
        raise SignatureMissing
    expected = hmac.digest(plan.key, _signed_bytes(request, plan, now), plan.algorithm)
    # Svix-style headers hold several signatures, separated by spaces, while a key is being rotated.
    if not any(hmac.compare_digest(_decoded(candidate, plan), expected) for candidate in signature.split()):
        raise SignatureInvalid


def _signed_bytes(request: WebhookRequest, plan: HmacPlan, now: datetime) -> bytes:
    """What the signature covers. Tokens are replaced once: a body may contain text that looks like one."""
    values = {"{body}": request.body, "{method}": request.method.encode(), "{url}": _wire(request.url)}
    if "{timestamp}" in plan.payload_format:
        values["{timestamp}"] = _fresh_timestamp(request, plan, now)
    if "{svix-id}" in plan.payload_format:
        values["{svix-id}"] = _needed(request, plan.message_id_header)
    return b"".join(values.get(piece, piece.encode()) for piece in _TOKENS.split(plan.payload_format))


def _fresh_timestamp(request: WebhookRequest, plan: HmacPlan, now: datetime) -> bytes:
    raw = _needed(request, plan.timestamp_header)
    text = raw.decode("latin-1").strip()
    if not _TIMESTAMP.fullmatch(text):
        raise SignatureInvalid("the signature's timestamp is malformed")
    seconds = float(text)
    if seconds > MILLISECONDS_FROM:
        seconds /= 1000
    if abs(now.timestamp() - seconds) > MOST_SKEW_SECONDS:
        raise SignatureInvalid("the signature is too old, or a clock is wrong")
    return raw


def _needed(request: WebhookRequest, header: str) -> bytes:
    value = request.headers.get(header, "")
    if not value:
        raise SignatureMissing("a header that the signature covers is missing")
    return _wire(value)


def _decoded(candidate: str, plan: HmacPlan) -> bytes:
    """The signature's bytes; empty, which equals no digest, when it is malformed."""
    if not candidate.startswith(plan.prefix):
        return b""
    text = candidate[len(plan.prefix) :]
    try:
        return bytes.fromhex(text) if plan.encoding == "hex" else base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""


def _wire(text: str) -> bytes:
    """The bytes of a header as they came: WSGI hands them over as Latin-1 text."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
