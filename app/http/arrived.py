"""A request as it arrived, for those who check what was signed: its target still escaped, its headers by lower case.

Owns the reading of the WSGI environment, for both doors of the webhooks.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

Environ = dict[str, Any]
_UNPREFIXED = {"CONTENT_TYPE": "content-type", "CONTENT_LENGTH": "content-length"}
_names: dict[str, str] = {}  # as many as there are headers that providers send; bounded, because anybody may invent one
MOST_NAMES = 500


def raw_target(environ: Environ) -> str | None:
    """Path and query exactly as they came: that is what was signed. None where the server does not tell."""
    raw: str | None = environ.get("RAW_URI") or environ.get("REQUEST_URI")
    if raw and not raw.startswith("/"):  # a proxy may send the absolute form
        parts = urlsplit(raw)
        raw = parts.path + (f"?{parts.query}" if parts.query else "")
    return raw or None


def headers_of(environ: Environ) -> dict[str, str]:
    """All headers, their names in lower case."""
    found = {}
    for key, value in environ.items():
        if key.startswith("HTTP_"):
            name = _names.get(key)
            if name is None:
                name = key[5:].replace("_", "-").lower()
                if len(_names) < MOST_NAMES:
                    _names[key] = name
            if name not in ("content-type", "content-length"):
                found[name] = value
        elif key in _UNPREFIXED and value:
            found[_UNPREFIXED[key]] = value
    return found
