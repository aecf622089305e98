"""Rows as plain JSON, for people and scripts.

Owns how a value of ours is written: times in UTC as ISO 8601, ids as text, bytes as base64.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID


def plain(value: Any) -> Any:
    """The value as JSON holds it; what JSON knows stays as it is.

    A Decimal becomes a number: money and seconds here have at most 12 digits, which a float keeps exactly.
    """
    match value:
        case datetime():
            return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        case UUID():
            return str(value)
        case Decimal():
            return float(value)
        case bytes():
            return base64.b64encode(value).decode()
        case Mapping():
            return {str(key): plain(item) for key, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
    return value


def fields(row: object, names: Iterable[str]) -> dict[str, Any]:
    """The named attributes of a row, plain; ``shown=attribute`` shows one under another name."""
    pairs = (name.partition("=") for name in names)
    return {shown: plain(getattr(row, attribute or shown)) for shown, _, attribute in pairs}
