"""`readiness`: is this platform fit for customers? A table, JSON or Markdown, and an exit code."""

from __future__ import annotations

import textwrap

import click
from flask import current_app

from app.cli.output import WIDTH, DataCommand, Row
from app.cli.typed import platform
from app.config import read_settings
from app.services import readiness as service

_NAME = 24
_INDENT = " " * (6 + _NAME + 9)


def _as_table(report: Row) -> str:
    """A line a check within 100 columns, beneath it what to do unless it passed; the score at the end."""
    lines = []
    for check in report["checks"]:
        head = f"{check['status']:<6}{check['name']:<{_NAME}}{check['duration_ms']:>6}ms "
        said = check["reason"] + (f" -> {check['fix']}" if check["fix"] else "")
        lines += textwrap.wrap(said, WIDTH, initial_indent=head, subsequent_indent=_INDENT)
    counts = {word: sum(check["status"] == word for check in report["checks"]) for word in ("PASS", "WARN", "FAIL")}
    told = ", ".join(f"{number} {word}" for word, number in counts.items() if number)
    return "\n".join([*lines, "", f"Score {report['score']:g} of 100: {told}"])


def _as_markdown(report: Row) -> str:
    """The same as a table for a pull request or a ticket."""
    lines = [
        f"**Readiness: {report['score']:g} of 100**",
        "",
        "| status | check | ms | reason | fix |",
        "|---|---|--:|---|---|",
    ]
    for check in report["checks"]:
        cells = [str(check[name]).replace("|", "\\|") for name in ("status", "name", "duration_ms", "reason", "fix")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _in_words(report: Row) -> str:
    return _as_markdown(report) if click.get_current_context().params["markdown"] else _as_table(report)


@click.command("readiness", cls=DataCommand, text=_in_words, failed=lambda report: not service.is_ready(report))
@click.option("--markdown", is_flag=True, help="Print a table in Markdown.")
def readiness(markdown: bool) -> Row:
    """Check everything, really, within ten seconds. Exit code 1 when anything failed.

    Posts a marked message to the alert channel and a marked report to Sentry, if they are configured.
    """
    if "platform" not in current_app.extensions:  # wrong settings keep the rest from starting
        return service.refuse(read_settings()[1])
    return service.run(platform())
