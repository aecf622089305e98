"""How commands print: aligned text for people, or one JSON document for scripts; errors without traceback.

Owns ``--json``, exit codes (1 for a failure, 2 for wrong usage) and the width of a line. A command
returns plain data and never prints by itself.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

import click
from flask.cli import with_appcontext
from flask.helpers import get_debug_flag

from app.errors import VoicedeskError
from app.observability import sentry
from app.observability.errors import report

WIDTH = 100
GAP = "  "
NARROWEST = 6
NONE = "-"

Row = dict[str, Any]


class DataCommand(click.Command):
    """A command whose callback returns data. ``columns`` are a list's columns; ``text`` words it otherwise.

    ``failed`` says whether what was found, once it is printed, ends the command with exit code 1.
    """

    def __init__(
        self,
        *args: Any,
        columns: Sequence[str] = (),
        text: Callable[[Any], str] | None = None,
        always_json: bool = False,
        failed: Callable[[Any], bool] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self._columns = columns
        self._text = text
        self._always_json = always_json
        self._failed = failed
        if self.callback is not None:
            self.callback = with_appcontext(self.callback)
        self.params.append(
            click.Option(
                ["--json", "as_json"], is_flag=True, help="Print exactly one JSON document.", expose_value=False
            )
        )

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read what was typed; a mistake is told in the form that was asked for."""
        ctx.meta["voicedesk.json"] = self._always_json or "--json" in args
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            if not ctx.meta["voicedesk.json"]:
                raise
            _fail_as_json("usage", error.format_message())
            ctx.exit(error.exit_code)

    def invoke(self, ctx: click.Context) -> None:
        """Run the command and print what it returns."""
        as_json = ctx.meta["voicedesk.json"]
        try:
            data = super().invoke(ctx)
        except VoicedeskError as error:
            if as_json:
                _fail_as_json(error.code, _sentence(error))
            else:
                click.echo(f"Error: {_sentence(error)}", err=True)
            ctx.exit(1)
        except click.UsageError as error:  # of options that do not go together
            if not as_json:
                raise
            _fail_as_json("usage", error.format_message())
            ctx.exit(error.exit_code)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:  # a bug: one readable line, and the story where errors go
            if get_debug_flag():
                raise
            _fail_unexpectedly(error, ctx, as_json=as_json)
            ctx.exit(1)
        if as_json:
            click.echo(json.dumps(data, indent=2 if sys.stdout.isatty() else None, ensure_ascii=False))
        else:
            click.echo(self._text(data) if self._text else render(data, self._columns))
        if self._failed is not None and self._failed(data):
            ctx.exit(1)


def render(data: Any, columns: Sequence[str] = ()) -> str:
    """A list as a table, an object as one line a field, both within 100 columns where values can be cut."""
    return table(data, columns) if isinstance(data, list) else sheet(data)


def table(rows: Sequence[Row], columns: Sequence[str] = ()) -> str:
    """An aligned table of the columns (all, if none are named). Ids and times are never cut: people copy them."""
    if not rows:
        return "(none)"
    columns = columns or list(rows[0])
    cells = [[_brief(_cell(row.get(column))) for column in columns] for row in rows]
    widths = [max(len(line[place]) for line in [list(columns), *cells]) for place in range(len(columns))]
    _shrink(widths, columns)
    lines = [[column.upper() for column in columns], *cells]
    return "\n".join(
        GAP.join(_cut(cell, width).ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def sheet(row: Row) -> str:
    """One field a line; lists and objects are indented beneath their name."""
    width = max((len(name) for name in row), default=0)
    lines = []
    for name, value in row.items():
        if isinstance(value, dict | list) and value:
            lines += [name, *_indented(value)]
        else:
            lines.append(f"{name.ljust(width)}{GAP}{_cell(value)}")
    return "\n".join(lines)


def _indented(value: Any) -> list[str]:
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):
        text = table(value)
    elif isinstance(value, dict) and all(len(_cell(item)) < WIDTH - 30 for item in value.values()):
        text = "\n".join(f"{name}{GAP}{_cell(item)}" for name, item in value.items())
    else:
        text = json.dumps(value, indent=2, ensure_ascii=False)
    return [f"  {line}" for line in text.splitlines()]


def _cell(value: Any) -> str:
    """A value on one line."""
    if value is None or value in ("", [], {}):
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        value = ", ".join(value)
    if isinstance(value, dict | list):
        value = json.dumps(value, ensure_ascii=False)
    text = " ".join(str(value).split())
    if len(text) == len("2026-12-01T15:00:00.000Z") and text[10] == "T" and text.endswith("Z"):
        return f"{text[:10]} {text[11:19]}Z"
    return text


def _brief(cell: str) -> str:
    """A time to the minute: a table is scanned, a sheet is read."""
    return f"{cell[:16]}Z" if len(cell) == len("2026-12-01 15:00:00Z") and cell[10:20:9] == " Z" else cell


def _shrink(widths: list[int], columns: Sequence[str]) -> None:
    """Take from the widest column that may be cut until the line fits."""
    cuttable = [place for place, column in enumerate(columns) if not column.endswith(("id", "_at"))]
    while cuttable and sum(widths) + len(GAP) * (len(widths) - 1) > WIDTH:
        widest = max(cuttable, key=lambda place: widths[place])
        if widths[widest] <= NARROWEST:
            return
        widths[widest] -= 1


def _cut(cell: str, width: int) -> str:
    return cell if len(cell) <= width else cell[: width - 1] + "…"


def _sentence(error: VoicedeskError) -> str:
    return f"{error} {error.advice}".strip()


def _fail_as_json(code: str, message: str) -> None:
    click.echo(json.dumps({"error": {"code": code, "message": message}}, ensure_ascii=False), err=True)


def _fail_unexpectedly(error: Exception, ctx: click.Context, *, as_json: bool) -> None:
    """Report a bug and say so; its text may hold anything, so only its class is shown."""
    report(error, where="cli", event="command.failed", command=ctx.command.name)
    sentry.flush()
    message = f"It failed unexpectedly ({type(error).__name__}); it has been reported. `flask --debug` shows where."
    if as_json:
        _fail_as_json("internal", message)
    else:
        click.echo(f"Error: {message}", err=True)
