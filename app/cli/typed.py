"""What can be typed: organizations by id, ``key=value``, and values from files. Owns their checks alone."""

from __future__ import annotations

import getpass
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import click
from flask import current_app

from app.services.platform import Platform


class Value(click.ParamType[str]):
    """Text, or ``@file`` for a file's content; ``@@`` begins a text with an at sign."""

    name = "value"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text itself; fails with the file's name, never its content."""
        if value.startswith("@@"):
            return value[1:]
        if not value.startswith("@"):
            return value
        try:
            return Path(value[1:]).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            self.fail(f"{value[1:]} cannot be read ({type(error).__name__})", param, ctx)


class Pair(click.ParamType[tuple[str, str]]):
    """``key=value``, the value as in ``Value``."""

    name = "key=value"

    def convert(
        self, value: str | tuple[str, str], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """Key and value; fails without repeating what was typed, which may be a secret."""
        if isinstance(value, tuple):
            return value
        key, equals, rest = value.partition("=")
        if not equals or not key.strip():
            self.fail("key=value is needed", param, ctx)
        return key.strip(), Value().convert(rest, param, ctx)


class Moment(click.ParamType[datetime]):
    """A moment: ISO 8601 (UTC where no offset is given), or a span back from now: ``90m``, ``24h``, ``7d``."""

    name = "moment"
    _SPAN = re.compile(r"(\d{1,6})([mhd])")
    _UNITS = {"m": "minutes", "h": "hours", "d": "days"}

    def convert(self, value: str | datetime, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """The moment, aware."""
        if isinstance(value, datetime):
            return value
        span = self._SPAN.fullmatch(value.strip())
        try:
            if span:
                return datetime.now(UTC) - timedelta(**{self._UNITS[span[2]]: int(span[1])})
            at = datetime.fromisoformat(value.strip())
        except (ValueError, OverflowError):
            self.fail("a moment is needed, such as 2026-11-02T09:00Z, 2026-11-02, 90m, 24h or 7d", param, ctx)
        return at if at.tzinfo else at.replace(tzinfo=UTC)


VALUE = Value()
PAIR = Pair()
MOMENT = Moment()

of_org = click.option("--org", "org_id", type=click.UUID, help="Only this organization's.")
most = click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="At most so many.")


def platform() -> Platform:
    """This process's platform."""
    return cast(Platform, current_app.extensions["platform"])


def operator() -> str:
    """Who types, for the audit trail: $LOGNAME or $USER, or the system's name for this user."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
