"""A failure as libraries have them: with what they were given in its message."""

from __future__ import annotations

from typing import Any

NUMBER = "+4917655544433"
SECRET = "a-secret-of-this-test-51"
WORDS = "Jane would like her fringe cut short"


def fail(*_args: Any, **_kwargs: Any) -> Any:
    """Fails as a library does: with what it was given in its message."""
    heard = WORDS  # a local variable, as a frame would show it
    raise RuntimeError(f"cannot send {heard!r} to {NUMBER} with {SECRET}")
