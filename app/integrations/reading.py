"""Reads JSON from outside into JSON that can be kept: any bytes in, plain storable values out.

Owns what PostgreSQL's jsonb and a log cannot hold (NUL, lone surrogates, NaN, bottomless nesting)
and what nobody may keep (other people's secrets). Knows no message type.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from enum import Enum, auto
from functools import lru_cache
from typing import Any

import orjson

DEEPEST = 64
TOO_DEEP = "[too deep]"
SCRUBBED = "[scrubbed]"

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_URL_USER = re.compile(r"^(\w+://)[^/?#@\s]+@")

# Text under such a key is a secret; numbers are counters (maxTokens, promptTokens).
_TOKEN = re.compile(r"token(?!i[sz])", re.IGNORECASE)
# Anything but yes and no under such a key is one, an id of a credential apart, which only points at it.
_SECRET = re.compile(
    r"secret(?!ar)|passw(or)?d|passphrase|authorization|cookie|credential(?!s?[_-]?ids?$)"
    r"|(api|private|access|signing|encryption|auth)[_-]?key",
    re.IGNORECASE,
)
_HEADERS = re.compile(r"headers$", re.IGNORECASE)


class Holds(Enum):
    """What stands under a key."""

    ANYTHING = auto()
    TOKENS = auto()
    SECRETS = auto()


def read_json(text: bytes | str) -> Any:
    """Parse ``text``; raise ValueError when it is no JSON at all.

    orjson refuses what other writers produce (NaN, lone surrogates): the standard library reads those.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(text, parse_constant=lambda _: None, parse_int=_bounded_int)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def storable(value: Any) -> Any:
    """The same JSON without what cannot be stored; nesting below 64 levels becomes ``[too deep]``."""
    return _walk(value, 0, lambda key: Holds.ANYTHING)


def storable_without(value: Any, secrets: frozenset[str]) -> Any:
    """``storable``, and what stands under any of these keys replaced; all else stays as it was said."""
    return _walk(value, 0, lambda key: Holds.SECRETS if key in secrets else Holds.ANYTHING)


def scrubbed(value: Any) -> Any:
    """``storable``, and with every secret replaced, recursively. Keys and shapes stay.

    Vapi's messages carry the phone number's Twilio token, server secrets and custom headers
    (``ServerMessage*PhoneNumber_Twilio`` and ``Server`` in Vapi's server SDK).
    """
    return _walk(value, 0, kept_under)


@lru_cache(maxsize=4096)
def kept_under(key: str) -> Holds:
    """What a key's name says about its value."""
    if _SECRET.search(key) or _HEADERS.search(key):
        return Holds.SECRETS
    return Holds.TOKENS if _TOKEN.search(key) else Holds.ANYTHING


def _walk(value: Any, depth: int, judge: Callable[[str], Holds]) -> Any:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if not isinstance(value, dict | list):
        return value
    if depth >= DEEPEST:
        return TOO_DEEP
    if isinstance(value, list):
        return [_walk(item, depth + 1, judge) for item in value]
    return {_text(key): _under(key, item, depth + 1, judge) for key, item in value.items()}


def _under(key: str, value: Any, depth: int, judge: Callable[[str], Holds]) -> Any:
    holds = judge(key)
    if holds is Holds.ANYTHING:
        return _walk(value, depth, judge)
    return _without(value, depth, keep_numbers=holds is Holds.TOKENS)


def _without(value: Any, depth: int, *, keep_numbers: bool) -> Any:
    """The shape of ``value`` with its leaves replaced; true, false and null are no secrets."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, dict | list) and depth >= DEEPEST:
        return TOO_DEEP
    if isinstance(value, dict):
        return {_text(key): _without(item, depth + 1, keep_numbers=keep_numbers) for key, item in value.items()}
    if isinstance(value, list):
        return [_without(item, depth + 1, keep_numbers=keep_numbers) for item in value]
    if keep_numbers and isinstance(value, int | float):
        return _walk(value, depth, kept_under)
    return SCRUBBED


def _text(value: str) -> str:
    """NUL and lone surrogates become U+FFFD; a URL loses the user and password it carries."""
    if "\x00" in value or not value.isascii():
        value = _UNSTORABLE.sub("\ufffd", value)
    return _URL_USER.sub(rf"\1{SCRUBBED}@", value) if "://" in value[:16] else value


def _bounded_int(digits: str) -> int | float:
    """Integers beyond 64 bits become floats, as orjson reads them."""
    return int(digits) if len(digits) < 19 else float(digits)
