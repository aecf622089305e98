"""The whole vocabulary of failure: temporary (try again) and permanent (do not), and requests refused.

Owns the classes and nothing else; imports nothing of the house. Messages are fixed sentences: never
put a phone number, a text, a credential or a provider's free text into one, because they end in logs.
"""

from __future__ import annotations

from datetime import timedelta


class VoicedeskError(Exception):
    """Anything this product raises on purpose.

    ``code`` is a stable word for machines, the message a sentence for people, ``advice`` what a
    person can do about it.
    """

    code = "error"
    advice = ""

    def __init__(self, message: str = "", *, code: str | None = None, advice: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").strip().splitlines()[0])
        if code is not None:
            self.code = code
        if advice is not None:
            self.advice = advice


class ConfigurationError(VoicedeskError):
    """A setting or a database role is wrong; the process must not start."""

    code = "configuration"


# --- temporary: the same thing may work later -------------------------------------------------


class TemporaryFailure(VoicedeskError):
    """It did not work now and may work later.

    ``retry_after`` is the provider's own wish, when it said one.
    """

    code = "temporary"

    def __init__(
        self,
        message: str = "",
        *,
        retry_after: timedelta | None = None,
        code: str | None = None,
        advice: str | None = None,
    ) -> None:
        super().__init__(message, code=code, advice=advice)
        self.retry_after = retry_after


class ProviderUnavailable(TemporaryFailure):
    """The provider did not answer, or answered 5xx. A failure for its circuit.

    ``maybe_done`` is False only when the request certainly had no effect (the connection was
    refused before a byte was written). When True, somebody must look before repeating it.
    ``circuit``: the one it failed behind, which says so when it closes again. ``probing``: the circuit
    was open, and this call was let through to see whether the provider is back.
    """

    code = "provider_unavailable"
    circuit: str | None = None
    probing = False

    def __init__(self, message: str = "", *, maybe_done: bool = True, retry_after: timedelta | None = None) -> None:
        super().__init__(message, retry_after=retry_after)
        self.maybe_done = maybe_done


class ProviderThrottled(TemporaryFailure):
    """The provider answered 429: slower, please. Not a failure for its circuit; had no effect."""

    code = "provider_throttled"


class CircuitOpen(TemporaryFailure):
    """The circuit is open: nothing was sent. Waiting for it costs no attempt."""

    code = "circuit_open"

    def __init__(self, circuit: str, *, retry_after: timedelta) -> None:
        super().__init__(f"circuit {circuit} is open", retry_after=retry_after)
        self.circuit = circuit


class DeadlineExceeded(TemporaryFailure):
    """The time of whoever was waiting ran out first. Says nothing about the provider's health."""

    code = "deadline"

    def __init__(self, message: str = "", *, maybe_done: bool = True) -> None:
        super().__init__(message)
        self.maybe_done = maybe_done


class CredentialsRefused(TemporaryFailure):
    """The provider refused this organization's credentials; concerns no other organization.

    Temporary, because an operator renews them: what waits is done then. Had no effect.
    ``provider_code`` is the provider's own code, as text.
    """

    code = "credentials_refused"
    advice = "Renew the integration's credentials."

    def __init__(
        self, message: str = "", *, provider_code: str = "", code: str | None = None, advice: str | None = None
    ) -> None:
        super().__init__(message, code=code, advice=advice)
        self.provider_code = provider_code


class DatabaseUnavailable(TemporaryFailure):
    """The database cannot be reached or did not commit in time."""

    code = "database_unavailable"


# --- permanent: repeating it cannot help ------------------------------------------------------


class PermanentFailure(VoicedeskError):
    """It will never work like this; repeating it cannot help."""

    code = "permanent"


class ProviderRefused(PermanentFailure):
    """The provider refused this one request (a 4xx). ``provider_code`` is its own code, as text."""

    code = "provider_refused"

    def __init__(
        self, message: str = "", *, provider_code: str = "", code: str | None = None, advice: str | None = None
    ) -> None:
        super().__init__(message, code=code, advice=advice)
        self.provider_code = provider_code


class RecipientOptedOut(ProviderRefused):
    """The recipient has opted out of texts from this organization."""

    code = "opted_out"
    advice = "Only the recipient can lift this, by texting START."


class ResourceGone(ProviderRefused):
    """What was asked for does not exist at the provider, or no longer does (404, 410)."""

    code = "gone"


class AlreadyExists(ProviderRefused):
    """An object with this id exists already at the provider (Google's 409 duplicate)."""

    code = "already_exists"


class PreconditionFailed(ProviderRefused):
    """The object changed at the provider since it was read (If-Match, 412)."""

    code = "precondition_failed"


class NotFound(PermanentFailure):
    """There is no such thing here (or not for this organization)."""

    code = "not_found"


class InvalidInput(PermanentFailure):
    """What was given cannot be used; the message says which part and why."""

    code = "invalid_input"


class SlotTaken(PermanentFailure):
    """Another appointment holds this time."""

    code = "slot_taken"


# --- requests that come in and are refused ----------------------------------------------------


class RequestRefused(VoicedeskError):
    """An incoming request is refused; ``status`` is the HTTP status to answer."""

    code = "refused"
    status = 400


class UnknownEndpoint(RequestRefused):
    """No integration has this endpoint token."""

    code = "unknown_endpoint"
    status = 404


class SignatureMissing(RequestRefused):
    """The request carries no usable proof of who sent it."""

    code = "signature_missing"
    status = 401


class SignatureInvalid(RequestRefused):
    """The proof of who sent the request does not hold."""

    code = "signature_invalid"
    status = 403


class KeyMissing(RequestRefused):
    """No API key was given."""

    code = "key_missing"
    status = 401
    advice = "Send it as `Authorization: Bearer ...` or `X-Api-Key: ...`."


class KeyRefused(RequestRefused):
    """The API key is unknown, revoked or expired."""

    code = "key_refused"
    status = 401


class ScopeMissing(RequestRefused):
    """The API key may not do this."""

    code = "scope_missing"
    status = 403


class UnsupportedContentType(RequestRefused):
    """The provider never sends this content type."""

    code = "unsupported_content_type"
    status = 415


class MalformedEvent(RequestRefused):
    """The request is authentic and cannot be understood; it is kept, raw, as a dead delivery."""

    code = "malformed_event"
    status = 400
