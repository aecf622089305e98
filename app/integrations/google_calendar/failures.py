"""What Google's failures mean (Calendar API guide, "Handle API errors").

Owns the sorting of HTTP answers, of silence and of refused tokens into ``app.errors``. Google's own
words never go into an error: they repeat addresses and titles.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from app.errors import (
    AlreadyExists,
    CredentialsRefused,
    DeadlineExceeded,
    PreconditionFailed,
    ProviderRefused,
    ProviderThrottled,
    ProviderUnavailable,
    ResourceGone,
    VoicedeskError,
)
from app.integrations.http_errors import parse_retry_after

FULL_TIMEOUT_SECONDS = 10.0
# A try shorter than this ran out because its caller had no time, which says nothing about Google.
SHORT_TIMEOUT_SECONDS = 2.0

USAGE_LIMITS = frozenset(
    {
        "rateLimitExceeded",
        "userRateLimitExceeded",
        "quotaExceeded",
        "dailyLimitExceeded",
        "concurrentLimitExceeded",
        "servingLimitExceeded",
        "limitExceeded",
    }
)
_ADDRESS = "PUBLIC_BASE_URL must be https, with a certificate that Google accepts."
_SHARING = "Share the calendar with this account, allow it to make changes, and enable the Calendar API."


def sort_answer(status: int, headers: Mapping[str, str], content: bytes, *, writes: bool) -> VoicedeskError:
    """The error to raise for an answer other than success. ``writes``: whether it may have been done all the same."""
    reason = _reason(content) or str(status)
    retry_after = parse_retry_after(headers.get("retry-after"))
    if status == 429 or (status == 403 and reason in USAGE_LIMITS):
        return ProviderThrottled("Google asks to slow down", retry_after=retry_after)
    if reason.startswith("push."):
        return ProviderRefused("Google does not post to this address", provider_code=reason, advice=_ADDRESS)
    if status == 403:
        return ProviderRefused("Google does not allow this", provider_code=reason, advice=_SHARING)
    for meant, (kind, sentence) in _MEANINGS.items():
        if status == meant:
            return kind(sentence, provider_code=reason)
    if 400 <= status < 500 and status != 408:
        return ProviderRefused("Google refused the request", provider_code=reason)
    return ProviderUnavailable("Google answered with an error of its own", maybe_done=writes, retry_after=retry_after)


_MEANINGS: dict[int, tuple[type[ProviderRefused | CredentialsRefused], str]] = {
    401: (CredentialsRefused, "Google does not accept the credentials"),
    404: (ResourceGone, "Google does not know this"),
    409: (AlreadyExists, "Google has an event with this id"),
    410: (ResourceGone, "Google no longer has this"),
    412: (PreconditionFailed, "the event was changed meanwhile"),
}


def sort_silence(error: Exception, timeout_seconds: float, *, maybe_done: bool) -> VoicedeskError:
    """The error to raise when no (readable) answer came.

    A time-out is the provider's failure, unless the caller gave less than 2 s: then it is the
    caller's shortness, DeadlineExceeded, and counts against no circuit.
    """
    if not isinstance(error, TimeoutError):
        return ProviderUnavailable("Google cannot be reached", maybe_done=maybe_done)
    if timeout_seconds < SHORT_TIMEOUT_SECONDS:
        return DeadlineExceeded("the time for asking Google ran out", maybe_done=maybe_done)
    return ProviderUnavailable("Google did not answer in time", maybe_done=maybe_done)


def sort_refusal(answer: Any) -> VoicedeskError:
    """The error to raise when the token endpoint refuses; ``answer`` is its JSON, if it is any (RFC 6749, 5.2)."""
    code = answer.get("error") if isinstance(answer, dict) else None
    code = _word(code) or "token_refused"
    if code == "invalid_grant":
        return CredentialsRefused(
            "the consent or key was withdrawn or has expired", provider_code=code, advice="Connect the calendar again."
        )
    return CredentialsRefused("Google gives no access for these credentials", provider_code=code)


def sort_calendar_error(errors: Any) -> VoicedeskError:
    """The error to raise when free/busy answers 200 with errors for the calendar: it is unknown, not free."""
    first = errors[0] if isinstance(errors, list) and errors and isinstance(errors[0], dict) else {}
    reason = _word(first.get("reason")) or "unknown"
    if reason == "notFound":
        return ResourceGone("Google does not know this calendar, or it is not shared", provider_code=reason)
    if reason in USAGE_LIMITS:
        return ProviderThrottled("Google asks to slow down")
    if reason in ("internalError", "backendError", "unknown"):
        return ProviderUnavailable("Google could not read the calendar", maybe_done=False)
    return ProviderRefused("Google does not show this calendar", provider_code=reason)


def _reason(content: bytes) -> str | None:
    """Google's own word for what is wrong: ``error.errors[0].reason``, or the newer ``error.status``."""
    try:
        error = json.loads(content)["error"]
        details = error.get("errors") or [{}]
        return _word(details[0].get("reason")) or _word(error.get("status"))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return None


def _word(value: Any) -> str | None:
    """A code, never a sentence."""
    return value if isinstance(value, str) and re.fullmatch(r"[\w.]{1,64}", value, re.ASCII) else None
