"""Twilio's signature over a webhook: checked, and made, with Twilio's own library.

Owns what is handed to it: the exact public URL and the raw parameters, repeated and blank ones too.
Must not interpret a parameter: nothing is trusted before this is through.
Source: Twilio's documentation, "Webhooks security", and the library's request_validator.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime
from urllib.parse import parse_qs, parse_qsl, urlsplit

from twilio.request_validator import RequestValidator

from app.errors import SignatureInvalid, SignatureMissing, UnsupportedContentType
from app.integrations.events import WebhookRequest
from app.integrations.twilio.credentials import TwilioCredentials

FORM = "application/x-www-form-urlencoded"
JSON = "application/json"
MOST_FIELDS = 2000  # Twilio sends some dozens; more only cost time before anything is proven

_SHARED_KEY_ADVICE = (
    "Twilio signed this webhook with a shared key, and webhooks are checked with the account's auth token: "
    "switch shared-key signing off."
)


class Form(dict[str, list[str]]):
    """Repeated parameters, under the method's name that Twilio's library asks for."""

    def getlist(self, name: str) -> list[str]:
        """All values of one parameter."""
        return self[name]


def verify(request: WebhookRequest, credentials: TwilioCredentials, *, now: datetime) -> None:
    """Return when the account's auth token signed this webhook. Twilio signs no time, so ``now`` decides nothing.

    Raises SignatureMissing (no header: the library fails on that with a TypeError), SignatureInvalid,
    UnsupportedContentType for a body that is neither a form nor JSON.
    """
    signature = request.headers.get("x-twilio-signature", "").strip()
    if not signature:
        raise SignatureMissing("the header X-Twilio-Signature is missing")
    url = request.url.partition("#")[0]  # a fragment tells Twilio how to connect; it is neither sent nor signed
    form, held = Form(), True
    if content_type(request) == JSON:
        held = _holds_hash(url, request.body)
    elif content_type(request) == FORM or not request.body:
        form = read_form(request.body)
    else:
        raise UnsupportedContentType
    # The account it says it is of chooses the token; the token then proves that it is.
    token = credentials.token_of(form.get("AccountSid", [""])[0]).get_secret_value()
    if not _matches(RequestValidator(token), url, form, signature) or not held:
        # The header that names a shared key is the sender's claim: it may explain, and must not choose how we check.
        shared_key = "x-twilio-webhooks-signature-settings" in request.headers
        raise SignatureInvalid("the signature does not match", advice=_SHARED_KEY_ADVICE if shared_key else None)


def content_type(request: WebhookRequest) -> str:
    """The media type alone, in lower case."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def read_form(body: bytes) -> Form:
    """A form's parameters as they were sent: blanks kept, repeated ones all there. Raises SignatureInvalid."""
    form = Form()
    try:
        pairs = parse_qsl(body.decode("utf-8"), keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError:
        raise SignatureInvalid("the body is not a form, so it was not signed as one") from None
    for name, value in pairs:
        form.setdefault(name, []).append(value)
    return form


def sign(url: str, params: Mapping[str, str], auth_token: str) -> str:
    """The header that Twilio would send with this form to this URL."""
    return str(RequestValidator(auth_token).compute_signature(url, dict(params)))


def _holds_hash(url: str, body: bytes) -> bool:
    """JSON is not signed itself: the signed URL carries its hash, without which nothing is proven."""
    stated = parse_qs(urlsplit(url).query).get("bodySHA256", [""])[0].lower()
    return hmac.compare_digest(hashlib.sha256(body).hexdigest().encode(), stated.encode())


def _matches(validator: RequestValidator, url: str, form: Form, signature: str) -> bool:
    """Whether it signs the URL as it is, without its port, or with it: Twilio is not consistent."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    host = parts.netloc.removesuffix(f":{port}") if port else parts.netloc
    with_port = f"{host}:{port or (443 if parts.scheme == 'https' else 80)}"
    found = False
    for candidate in {url, parts._replace(netloc=host).geturl(), parts._replace(netloc=with_port).geturl()}:
        expected = str(validator.compute_signature(candidate, form))
        found |= hmac.compare_digest(expected.encode(), signature.encode())
    return found
