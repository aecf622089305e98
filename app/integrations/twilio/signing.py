"""Twilio's signature over a webhook: checked, and made, with Twilio's own library.

Owns what is handed to it: the exact public URL and the raw parameters, repeated and blank ones too.
Source: Twilio's documentation, "Webhooks security", and the library's request_validator.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime
from urllib.parse import parse_qs, parse_qsl, urlsplit

from twilio.request_validator import RequestValidator

from app.errors import SignatureInvalid, SignatureMissing
from app.integrations.events import WebhookRequest
from app.integrations.twilio.credentials import TwilioCredentials

HEADER = "x-twilio-signature"
MOST_FIELDS = 2000


class Form(dict[str, list[str]]):
    """Repeated parameters, under the method's name that Twilio's library asks for."""

    def getlist(self, name: str) -> list[str]:
        """All values of one parameter."""
        return self[name]


def verify(request: WebhookRequest, credentials: TwilioCredentials, *, now: datetime) -> None:
    """Raise SignatureMissing (no header) or SignatureInvalid. Twilio signs no time, so ``now`` decides nothing.

    An absent header must be caught here: the library fails on it with a TypeError.
    """
    signature = request.headers.get(HEADER)
    if not signature:
        raise SignatureMissing("the header X-Twilio-Signature is missing")
    if not signature.isascii():
        raise SignatureInvalid("the signature is not base64")
    validator = RequestValidator(credentials.auth_token.get_secret_value())
    body_hash = parse_qs(urlsplit(request.url).query).get("bodySHA256")
    form, held = Form(), True
    if body_hash:  # a JSON body is signed by its hash, which is a part of the signed URL
        expected = hashlib.sha256(request.body).hexdigest()
        held = hmac.compare_digest(expected.encode(), body_hash[0].lower().encode())
    else:
        form = read_form(request.body)
    if not _matches(validator, request.url, form, signature) or not held:
        raise SignatureInvalid("the signature does not match")


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


def _matches(validator: RequestValidator, url: str, form: Form, signature: str) -> bool:
    """Compared in constant time with the signatures of the URL as it is, without its port, and with it."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    host = parts.netloc.removesuffix(f":{port}") if port else parts.netloc
    with_port = f"{host}:{port or (443 if parts.scheme == 'https' else 80)}"
    urls = {url, parts._replace(netloc=host).geturl(), parts._replace(netloc=with_port).geturl()}
    expected = [str(validator.compute_signature(candidate, form)) for candidate in urls]
    return any([hmac.compare_digest(one.encode(), signature.encode()) for one in expected])
