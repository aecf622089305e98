"""What Twilio's error codes mean to us: repeat it later, or never.

Source: Twilio's error dictionary (twilio.com/docs/api/errors); the sorting is ours.
"""

from __future__ import annotations

from typing import Any, Literal

import requests
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

from app.errors import (
    CredentialsRefused,
    ProviderRefused,
    ProviderThrottled,
    ProviderUnavailable,
    RecipientOptedOut,
    ResourceGone,
    VoicedeskError,
)

OPTED_OUT = 21610
# Bad or unreachable numbers and senders, empty or too long bodies, content and registration faults,
# blocked and filtered recipients, WhatsApp's closed window.
PERMANENT_CODES = frozenset(
    {11751, 20003, 20404, 21211, 21212, 21214, 21217, 21408, 21601, 21602, 21604, 21606, 21608, 21610, 21612}
    | {21614, 21617, 21620, 21622, 21654, 21656, 21659, 21703, 30002, 30003, 30004, 30005, 30006, 30007}
    | {30024, 30032, 30034, 63001, 63003, 63005, 63007, 63013, 63015, 63016, 63019, 63024, 63032, 63033, 63041}
)
# Rates, full queues, carriers' and Twilio's own trouble.
TRANSIENT_CODES = frozenset({14107, 20429, 20500, 20503, 21611, 30001, 30008, 30009, 30022, 30023, 30410, 63018, 63038})
_RATE_CODES = frozenset({14107, 20429, 21611, 30022, 63018})


def classify_status_error(code: str | int | None) -> Literal["permanent", "temporary"]:
    """Whether a text that failed after Twilio took it could work later."""
    return "temporary" if str(code or "").isdecimal() and int(str(code)) in TRANSIENT_CODES else "permanent"


def sort_refusal(status: int, code: int | None) -> VoicedeskError:
    """An answer of Twilio's that is not success, as an error to raise. Its free text stays behind."""
    word = str(code or status)
    if code == OPTED_OUT:
        return RecipientOptedOut("the recipient has opted out", provider_code=word)
    if status == 401 or code == 20003:
        return CredentialsRefused("Twilio refused the credentials", provider_code=word)
    if status == 429 or code in _RATE_CODES:
        return ProviderThrottled("Twilio asks to slow down")
    if status >= 500 or status == 408 or code in TRANSIENT_CODES:
        # 5xx says nothing of whether the text was taken: somebody must look before repeating it
        return ProviderUnavailable("Twilio answered with an error of its own")
    if status == 404:
        return ResourceGone("Twilio does not know this", provider_code=word)
    return ProviderRefused(f"Twilio refused the request (code {word})", provider_code=word)


def sort_transport(error: requests.RequestException) -> ProviderUnavailable:
    """A request without an answer: certainly without effect only where no connection came about."""
    inner: Any = error.args[0] if error.args else None
    reason = getattr(inner, "reason", inner)
    never_sent = isinstance(error, requests.ConnectTimeout) or isinstance(
        reason, NewConnectionError | NameResolutionError | ConnectTimeoutError
    )
    return ProviderUnavailable("Twilio did not answer", maybe_done=not never_sent)
