"""The stage of ``test_every_template.py``: a house asked over HTTP, and all that is said and texted in it.

Owns what scenes do and hear; the scenes, and what must have been heard at their end, are the test's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
from typing import Any

import pytest
import requests
from sqlalchemy import text

from app.integrations.breaker import circuits
from app.services.catalogue import CATALOGUE
from app.services.platform import Platform
from sandbox.standins import RemoteWorld
from tests.bookings import ADA
from tests.command_line import CommandLine
from tests.people import Business, open_business


class Wire:
    """A client as the tests' businesses use it, over a socket."""

    def __init__(self, url: str) -> None:
        self._url = url

    def post(self, path: str, *, data: str, content_type: str, headers: dict[str, str]) -> Heard:
        """POST it as a provider does."""
        sent = {**headers, "Content-Type": content_type}
        return Heard(requests.post(self._url + path, data=data.encode(), headers=sent, timeout=20))


class Heard:
    """An answer, read as a test client's."""

    def __init__(self, response: requests.Response) -> None:
        self.status_code, self._response = response.status_code, response

    def get_json(self) -> Any:
        """The body."""
        return self._response.json()


@dataclass
class Stage:
    """Where scenes are played: the house over HTTP, its providers, and all that was said on the phone."""

    wire: Any
    platform: Platform
    world: RemoteWorld
    cli: CommandLine
    settle: Callable[..., None]
    at: Callable[[datetime], None]
    away: Any
    monkeypatch: pytest.MonkeyPatch
    language: str
    said: list[str] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def open(self, **settings: Any) -> Business:
        """A business of this scene's own."""
        number = next(self.numbers)
        business = open_business(self.platform, self.world, f"Business {number}", f"+49301111{number:05d}")
        settings = {"language": self.language, **settings}
        words = [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", value)]
        self.cli.data("org", "set", business.id, *words)
        return business

    def is_said(self, key: str, sentence: str) -> None:
        """It is this sentence of the catalogue's, with anything for its values."""
        assert pattern_of(key, self.language).search(sentence), sentence

    def ask(self, business: Business, tool: str, *, tool_call_id: str = "", call_id: str = "", **given: Any) -> str:
        """Ask for one tool, in a call of its own unless it is named; what is said."""
        call_id = call_id or f"call-{next(self.numbers)}"
        self.said.append(business.tool(self.wire, tool, call_id=call_id, tool_call_id=tool_call_id, **given))
        return self.said[-1]

    def book(self, business: Business, start: datetime | str, **more: Any) -> str:
        """Ask for an appointment."""
        when = start if isinstance(start, str) else start.isoformat()
        return self.ask(business, "book_appointment", **{"start": when, "name": "Ada", "phone": ADA, **more})

    def vapi(self, business: Business, kind: str, **more: Any) -> Any:
        """Another message of Vapi's; every sentence of the answer counts as said."""
        answer = business.vapi(self.wire, {"type": kind, "call": {"id": f"call-{next(self.numbers)}"}, **more})
        assert answer.status_code == 200
        self.said += sentences_of(answer.get_json())
        return answer.get_json()

    def texts(self, business: Business, body: str, *, answers: int = 1) -> list[str]:
        """The customer texts it; what came back, once there are so many more."""
        before = len(self.heard(business))
        assert business.text(self.wire, ADA, body).status_code == 200
        self.settle(lambda: len(self.heard(business)) >= before + answers)
        return self.heard(business)[before:]

    def heard(self, business: Business, number: str = ADA) -> list[str]:
        """What the business has texted to the number."""
        return [one["body"] for one in self.world.messages() if (one["to"], one["from"]) == (number, business.number)]

    def sql(self, business: Business, statement: str, **values: Any) -> Any:
        """A value of the business's own rows, or a change of them."""
        with self.platform.database.transaction(business.id) as session:
            result = session.execute(text(statement), values)
            return result.scalar() if result.returns_rows else None

    def hours(self, business: Business, hours: dict[str, Any]) -> None:
        """Set the opening hours."""
        self.cli.data("org", "set", business.id, "--hours", "-", stdin=json.dumps(hours))

    @contextmanager
    def google(self, kind: str, *, patience: float = 2.2) -> Iterator[None]:
        """Google is not well meanwhile, and callers wait only so long."""
        self.patience(patience)
        self.world.fault("google", kind)
        try:
            yield
        finally:
            self.world.clear_faults()
            circuits.reset()
            self.patience(5)

    def patience(self, seconds: float) -> None:
        """Callers wait only so long."""
        changed = self.platform.settings.model_copy(update={"tool_deadline_seconds": seconds})
        self.monkeypatch.setattr(self.platform, "settings", changed)


def pattern_of(key: str, language: str) -> re.Pattern[str]:
    """What the sentence looks like with anything in the place of its values; of how a time is written, a time."""
    if key.startswith("time."):
        return re.compile(r"\b\d\d:\d\d\b")
    parts = re.split(r"(\{\w+\})", CATALOGUE.sentences[language][key])
    return re.compile("".join(".+" if part[:1] == "{" else re.escape(part) for part in parts))


def sentences_of(answer: Any) -> list[str]:
    """All strings of an answer."""
    if isinstance(answer, dict):
        return [said for value in answer.values() for said in sentences_of(value)]
    if isinstance(answer, list):
        return [said for value in answer for said in sentences_of(value)]
    return [answer] if isinstance(answer, str) else []
