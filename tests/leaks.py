"""The watch over a whole test run: no number, secret or word of anybody in any log, report or metric.

Everything that this process writes as a log line, every error report it would send, its metrics at the
end, and the log files of the processes that tests start are kept and searched when the session ends; a
find fails the run, also under xdist, where each worker searches its own. What is searched for is made
explicit by `plant` (secrets and words, as tests make them up), and by `PATTERNS`, which need no planting
because nothing of their form may be in a log at all.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY, generate_latest
from sentry_sdk.utils import event_from_exception

from app.observability import logging as lines
from app.observability import sentry

PATTERNS = {
    "a phone number": re.compile(r"(?<![\w+.])(?:\+|%2B)[1-9]\d{7,14}(?!\d)|whatsapp(?::|%3A)\d{8,}", re.I),
    "an e-mail address": re.compile(r"(?<![\w.%+/:-])[\w.%+-]+@(?:[\w-]+\.)+(?:com|org|net|test|example)\b", re.I),
    "an endpoint token": re.compile(r"/webhooks/[a-z-]+/(?![<\[*])[\w-]{8,}"),
    "a password in a URL": re.compile(r"[a-z]+://[^\s/:@\"]*:[^\s/@\"\[]+@"),
    "a signing secret": re.compile(r"\bwhsec_[\w+/=-]{8,}"),
    "an API key": re.compile(r"\bvd_[\w-]{12,}"),
    "a Slack token": re.compile(r"\bxox[a-z]-[\w-]{6,}"),
    "a bearer token": re.compile(r"\bbearer\s+(?!\[)[\w.~+/=-]{16,}", re.I),
    "a private key": re.compile(r"BEGIN [A-Z ]*PRIVATE KEY"),
}
FOREIGN_LOGS = ("postgres", "pg", "valkey", "redis", "standins", "stand-ins")  # they are the outside world's
SHORTEST_SECRET = 12
SHORTEST_WORDS = 12  # "hello there" may be anybody's
LEAST_LETTERS = 8  # a date with a time is nobody's words: without its numbers it looks like any line's
MOST_SHOWN = 20
_WORD = re.compile(rf"[\w-]{{{SHORTEST_SECRET},}}")
_CHANGING = re.compile(r"[0-9a-fA-F-]{8,}|\d+")


@dataclass(frozen=True)
class Leak:
    """What was found, and where; the line is shown, because these secrets are made up."""

    what: str
    source: str
    line: str

    def __str__(self) -> str:
        return f"{self.what} in {self.source}: {self.line[:300]}"


class Planted:
    """What tests made up and nobody may find in a log."""

    def __init__(self) -> None:
        self.secrets: set[str] = set()
        self.words: set[str] = set()

    def plant(self, *values: str) -> None:
        """Secrets: a single word each, searched for as it is."""
        for value in values:
            self.secrets.update(part for part in _WORD.findall(value) if len(part) >= SHORTEST_SECRET)

    def plant_words(self, value: Any) -> None:
        """What people say and write, in whatever holds it; too little of it would be found by chance."""
        if isinstance(value, dict):
            value = list(value.values())
        if isinstance(value, list):
            for inner in value:
                self.plant_words(inner)
        elif isinstance(value, str) and len(value) >= SHORTEST_WORDS and _is_said(value):
            self.words.add(value.strip())

    def search(self, written: Iterable[tuple[str, str]]) -> Iterator[Leak]:
        """The leaks in lines, each given with its source. Words are searched once in lines that differ in ids only."""
        said = {shape for text in self.words for shape in (_shape(text), _shape(json.dumps(text)[1:-1]))}
        seen: set[str] = set()
        for source, line in written:
            for what, pattern in PATTERNS.items():
                if pattern.search(line):
                    yield Leak(what, source, line)
            if any(word in self.secrets for word in _WORD.findall(line)):
                yield Leak("a planted secret", source, line)
            shape = _shape(line)
            if shape not in seen:
                seen.add(shape)
                if any(words in shape for words in said):
                    yield Leak("planted words", source, line)


def _is_said(text: str) -> bool:
    """Whether it is words, several of them, and not a date with a time."""
    return " " in text.strip() and sum(letter.isalpha() for letter in _shape(text)) >= LEAST_LETTERS


def _shape(text: str) -> str:
    return _CHANGING.sub("#", text)


planted = Planted()
plant = planted.plant
plant_words = planted.plant_words


class LeakWatch:
    """The plugin: keeps what is written from the session's beginning, searches it at the end."""

    def __init__(self) -> None:
        self._kept = tempfile.TemporaryFile(  # noqa: SIM115 - open as long as the session
            "w+", encoding="utf-8", errors="backslashreplace"
        )
        self._lock = threading.Lock()
        self.leaks: list[str] = []
        self._write, self._send = lines.write_line, sentry.send

    def begin(self) -> None:
        """From now on every line and every report is kept too."""
        lines.write_line = self._written
        sentry.send = self._sent

    def _keep(self, source: str, text: str) -> None:
        with self._lock:
            self._kept.writelines(f"{source}\t{line}\n" for line in text.splitlines())

    def _written(self, *said: str) -> None:
        for line in said:
            self._keep("log", line)
        self._write(*said)

    def _sent(self, error: BaseException, *, kind: str, where: str) -> str | None:
        options = {"include_local_variables": False, "include_source_context": False, "max_value_length": 1000}
        event, hint = event_from_exception(error, client_options=options)
        self._keep("report", json.dumps(sentry.scrub(dict(event), hint), default=str))
        return self._send(error, kind=kind, where=where)

    def everything(self, folder: Path | None) -> Iterator[tuple[str, str]]:
        """All that was written: by this process, and by those that tests have started."""
        with self._lock:
            self._kept.flush()
            self._kept.seek(0)
            for line in self._kept:
                source, _, text = line.rstrip("\n").partition("\t")
                yield source, text
        for line in generate_latest(REGISTRY).decode().splitlines():
            yield "metrics", line
        for path in logs_of_ours(folder) if folder else ():
            with path.open(encoding="utf-8", errors="backslashreplace") as file:
                for line in file:
                    yield str(path), line.rstrip("\n")

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Search; a find makes a worker tell its controller, and the run fail."""
        lines.write_line, sentry.send = self._write, self._send
        factory = getattr(session.config, "_tmp_path_factory", None)
        folder = getattr(factory, "_basetemp", None)
        found = planted.search(self.everything(folder))
        self.leaks += [str(leak) for leak, _ in zip(found, range(MOST_SHOWN), strict=False)]
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput["leaks"] = self.leaks
        if self.leaks:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """A worker of xdist has ended: take its finds over."""
        self.leaks += (getattr(node, "workeroutput", None) or {}).get("leaks", [])

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say what was found, where it is read."""
        if self.leaks:
            terminalreporter.section("leaks: numbers, secrets or words in logs, reports or metrics", red=True)
            for leak in self.leaks:
                terminalreporter.write_line(leak)


def logs_of_ours(folder: Path) -> Iterator[Path]:
    """The log files of our own processes below a folder; not those of servers and stand-ins."""
    for place, folders, files in os.walk(folder):
        if "PG_VERSION" in files:
            folders.clear()  # a database's data
            continue
        for name in files:
            if name.endswith(".log") and not name.startswith(FOREIGN_LOGS):
                yield Path(place, name)
