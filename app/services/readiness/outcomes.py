"""What a check can come to. Owns the rule for what is configured and cannot be reached."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from app.config import Environment

if TYPE_CHECKING:
    from app.services.platform import Platform

Status = Literal["PASS", "WARN", "FAIL"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """``reason`` is what was seen, ``fix`` what a person can do about it (empty on a PASS)."""

    status: Status
    reason: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """One check: a title, the group it is shown in, and what is done."""

    name: str
    group: str
    run: Callable[[Platform], Outcome]


def passed(reason: str) -> Outcome:
    """It works."""
    return Outcome("PASS", reason)


def warned(reason: str, fix: str) -> Outcome:
    """Optional and absent."""
    return Outcome("WARN", reason, fix)


def failed(reason: str, fix: str) -> Outcome:
    """It does not work."""
    return Outcome("FAIL", reason, fix)


def fallen_back(platform: Platform, reason: str, fix: str) -> Outcome:
    """Configured, and cannot be reached, and something else takes over: good enough for a desk, not for production."""
    status: Status = "FAIL" if platform.settings.environment is Environment.PRODUCTION else "WARN"
    return Outcome(status, reason, fix)
