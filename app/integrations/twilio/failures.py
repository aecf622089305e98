"""What a failed call to Twilio means, in the words of the house.

Owns the sorting of Twilio's two kinds of exception (the classic one and the RFC 9457 one, which are no
relations) by HTTP status and code. Passes on codes, never Twilio's sentences: they carry numbers.
"""

from __future__ import annotations

from twilio.base.exceptions import TwilioException, TwilioRestException, TwilioServiceException

from app.errors import (
    CredentialsRefused,
    ProviderRefused,
    ProviderThrottled,
    ProviderUnavailable,
    RecipientOptedOut,
    ResourceGone,
    VoicedeskError,
)
from app.integrations.http_errors import parse_retry_after
from app.integrations.twilio.client import Wire
from app.integrations.twilio.codes import OPTED_OUT, TRANSIENT_CODES

_CREDENTIAL_CODES = frozenset({"20003", "20005", "20006"})
_ADVICE = {
    "21211": "Check the recipient's number.",
    "21408": "Enable texts to this country in the Twilio console (Messaging geographic permissions).",
    "21606": "Check that from_number belongs to this Twilio account and can send texts.",
    "21608": "A trial account can only text verified numbers: verify it, or upgrade the account.",
    "21614": "The recipient's number cannot receive texts.",
    "21617": "Shorten the text to 1,600 characters.",
    "21703": "Add a sender to the Messaging Service.",
    "30002": "The Twilio account is suspended: settle this with Twilio.",
    "21655": "The approved template is not known to this Twilio account: check its SID with `template list`.",
    "63028": "The approved template has other variables: say which with `template set --variables`.",
    "63007": "Connect whatsapp_from to this Twilio account as a WhatsApp sender.",
    "63015": "The recipient must join the WhatsApp sandbox first.",
    "63016": "More than 24 hours after the customer's last message WhatsApp takes templates only.",
}


def sort_error(error: TwilioException, wire: Wire) -> VoicedeskError:
    """The failure that ``error`` is; ``wire`` has seen the answer it was made from."""
    status = wire.status
    code = _code(error)
    if status == 429 or (400 <= status < 500 and code in TRANSIENT_CODES):
        return ProviderThrottled(
            f"Twilio asks for less (code {code})", retry_after=parse_retry_after(wire.headers.get("retry-after"))
        )
    if not 400 <= status < 500 or status == 408:
        wish = parse_retry_after(wire.headers.get("retry-after"))
        return ProviderUnavailable(f"Twilio answered with HTTP {status}", retry_after=wish)
    return _refusal(status, code)


def _refusal(status: int, code: str) -> ProviderRefused | CredentialsRefused:
    if code == OPTED_OUT:
        return RecipientOptedOut(provider_code=code)
    if code in _CREDENTIAL_CODES or (status in (401, 403) and code in ("", str(status), f"20{status}")):
        return CredentialsRefused("Twilio refused the account's credentials", provider_code=code)
    if status == 404:
        return ResourceGone("Twilio does not know it", provider_code=code)
    return ProviderRefused(
        f"Twilio refused the request (code {code or status})",
        provider_code=code or str(status),
        advice=_ADVICE.get(code),
    )


def _code(error: TwilioException) -> str:
    if not isinstance(error, TwilioRestException | TwilioServiceException):
        return ""
    code = str(error.code)
    return code if code.isdecimal() and len(code) <= 6 else ""
