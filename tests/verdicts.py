"""Whether a check lets something through, as a value that a test can assert."""

from __future__ import annotations

from collections.abc import Callable

from app.errors import RequestRefused


def holds(check: Callable[[], object]) -> bool:
    """True when ``check`` returns, False when it refuses the request; any other exception passes through."""
    try:
        check()
    except RequestRefused:
        return False
    return True
