"""The command line as a test types it: one call, what it printed, and the JSON it printed."""

from __future__ import annotations

import json
from typing import Any

from click.testing import Result
from flask import Flask


class CommandLine:
    """`flask --app wsgi ...` inside this process, against the test's own application."""

    def __init__(self, app: Flask) -> None:
        self._runner = app.test_cli_runner()

    def run(self, *typed: object, stdin: str | None = None) -> Result:
        """Run a command; what was raised and not turned into a message fails the test."""
        result = self._runner.invoke(args=[str(word) for word in typed], input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    def data(self, *typed: object, stdin: str | None = None) -> Any:
        """What the command prints with --json; it must succeed and print nothing else on stdout."""
        result = self.run(*typed, "--json", stdin=stdin)
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)

    def refusal(self, *typed: object, exit_code: int = 1) -> dict[str, str]:
        """The error a command prints with --json; it must fail and print nothing on stdout."""
        result = self.run(*typed, "--json")
        assert result.exit_code == exit_code
        assert result.stdout == ""
        error: dict[str, str] = json.loads(result.stderr)["error"]
        return error


def refused(cli: CommandLine, *typed: Any) -> list[dict[str, Any]]:
    """What `integration check` finds when it finds something: exit code 1 and the list."""
    result = cli.run("integration", "check", *typed, "--json")
    assert result.exit_code == 1, result.stdout
    found: list[dict[str, Any]] = json.loads(result.stdout)
    return found
