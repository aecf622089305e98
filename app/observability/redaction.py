"""Masks what must not be said: numbers, addresses, secrets, endpoint tokens, whatever they stand in.

The last line of defence, not the first: nobody is to log a person or a secret at all. Owns the patterns,
which logs and Sentry share. Ids (UUIDs, delivery ids, Twilio's SIDs) and durations stay readable, or
nobody could work with what is left. Knows no text and no name when it sees one: whoever may hold those
(exceptions of libraries, breadcrumbs) is silenced by who writes the line or the report.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "[hidden]"
DEEPEST = 8  # a structure nested further is somebody's payload, and hidden as a whole
LONGEST = 4000  # characters of a text; what is longer is cut, because patterns take their time

# Repetitions are bounded or begin where nothing else can: somebody may have made the text for them.
_KEY_NAME = (
    r"(?:[a-z0-9]{1,40}[-_]){0,10}"
    r"(?:password|passwd|secret|token|api[-_]?key|private[-_]?key|authorization|signature)"
)
# In this order: what contains another comes first.
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.S), "[secret]"),
    (re.compile(r"\[(?:SQL|parameters):.*", re.S), "[statement]"),  # SQLAlchemy repeats what it sent
    (re.compile(r"\bDETAIL:.*", re.S), "[detail]"),  # PostgreSQL repeats the row
    (re.compile(r"([a-z][a-z0-9+.-]{0,30}://)[^\s/@\"']+@", re.I), r"\1[secret]@"),  # user and password of a URL
    (re.compile(r"(/[^\s?\"'<>/]*)\?[^\s\"'<>]+"), r"\1?[query]"),
    (re.compile(r"(/webhooks/[^/?\s]+/)[^/?\s\"']+"), r"\1[token]"),
    (re.compile(r"\b(bearer|basic)\s+(?!\[)[A-Za-z0-9._~+/=-]{12,}", re.I), r"\1 [secret]"),
    (
        re.compile(rf"(?<![a-z0-9_])({_KEY_NAME})([\"']?\s*[=:]\s*[\"']?)(?!\[)[^\s\"',;&\]}}]+", re.I),
        r"\1\2[secret]",
    ),
    (re.compile(r"\b(?:xox[a-z]|xapp)-[\w-]+"), "[secret]"),  # Slack
    (re.compile(r"hooks\.slack\.com/services/\S+"), "hooks.slack.com/services/[secret]"),
    (re.compile(r"\bvd_[\w-]{8,}"), "[secret]"),  # our own API keys
    (re.compile(r"\bwhsec_[\w+/=-]{8,}"), "[secret]"),  # a signing secret of Standard Webhooks, or of Stripe
    (re.compile(r"\bgAAAAA[\w-]{20,}=*"), "[secret]"),  # what a Fernet key sealed
    (re.compile(r"(?<![\w-])[\w-]{43}="), "[secret]"),  # a Fernet key
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*"), "[secret]"),  # a JWT
    (re.compile(r"\bya29\.[\w.-]+|\b1//[\w-]{20,}"), "[secret]"),  # Google's tokens
    # As Twilio's auth token; a SID has letters before its digits, and RQ's workers have such names.
    (re.compile(r"(?<!\w)(?<!orker )(?<!pubsub:)[0-9a-f]{32}(?!\w)"), "[secret]"),
    (re.compile(r"(?<![\w.%+-])[\w.%+-]+@(?:[\w-]+\.)+[a-z]{2,}", re.I), "[email]"),
    (re.compile(r"\bwhatsapp(:|%3A)\s*(?:\+|%2B)?\d{7,15}", re.I), r"whatsapp\1[number]"),
    (re.compile(r"(?<![\w.])(?:\+|%2B)[1-9](?:[ ().-]{0,2}\d){6,14}(?!\d)", re.I), "[number]"),
)
# Most values of a log line: a word, a code, a path of a module, or a UUID. Nothing above can be in them.
_HARMLESS = re.compile(
    r"(?!vd_|xox|xapp-)[a-z0-9_:.-]{1,31}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}",
)
# Secrets by their field's name, and what people say and are called. `token` is none of them: a lane has one.
_NAMES = """
    authorization cookie set-cookie password secret credentials api_key private_key auth_token access_token
    refresh_token client_secret webhook_secret channel_token endpoint_token signature x-vapi-secret x-signature
    x-vapi-signature x-twilio-signature x-goog-channel-token i-twilio-idempotency-token twilioauthtoken
    signing_secret app_secret verify_token x-hub-signature-256 stripe-signature webhook-signature
    twilioapisecret from to body text transcript summary messages artifact analysis waid profilename number
    phone phone_number customer customer_number recordingurl recording_url payload arguments
"""
_HIDDEN_FIELDS = frozenset(_NAMES.split())
HIDDEN_FIELDS = tuple(sorted(_HIDDEN_FIELDS))


def redact(text: str) -> str:
    """The text without numbers, addresses and secrets; what is left is as it was."""
    if _HARMLESS.fullmatch(text) and not text.startswith("whatsapp"):
        return text
    if len(text) > LONGEST:
        text = f"{text[:LONGEST]} [cut]"
    for pattern, mask in _PATTERNS:
        text = pattern.sub(mask, text)
    return text


def redact_value(value: Any, *, depth: int = 0) -> Any:
    """The same for whatever a field holds: texts in lists and objects too, and fields hidden by their name."""
    if isinstance(value, str):
        return redact(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if depth >= DEEPEST:
        return HIDDEN
    if isinstance(value, Mapping):
        return {redact(str(name)): redact_field(str(name), inner, depth=depth + 1) for name, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [redact_value(inner, depth=depth + 1) for inner in value]
    if isinstance(value, bytes | bytearray | memoryview):
        return HIDDEN  # a body, most likely
    return redact(str(value))


def redact_field(name: str, value: Any, *, depth: int = 0) -> Any:
    """The value of a field; hidden as a whole when its name says that it is a secret or somebody's words."""
    if name.lower() in _HIDDEN_FIELDS and value not in (None, "", 0, False):
        return HIDDEN
    return redact_value(value, depth=depth)
