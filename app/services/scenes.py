"""Scenes: an hour of a house's life in half a minute, as signed traffic to any server by its URLs.

Owns what happens in which scene and what is told of it: how many were sent, how they were answered, how long the
slowest took. A scene knows a server only from outside, so it runs against a laptop, a test system or a rival. What
one event looks like is ``simulated_vapi``'s and ``simulated_twilio``'s.
"""

from __future__ import annotations

import random
import re
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from app.errors import InvalidInput, TemporaryFailure
from app.services import simulated_twilio, simulated_vapi
from app.services.simulate import send
from app.services.simulated_twilio import Text
from app.services.simulated_vapi import Proof, Scene

AT_ONCE = 8
TRIES = 4  # Twilio and Vapi as `integration apply` sets them up: three retries
PAUSE_SECONDS = 1.0
NO_ANSWER = "no answer"
WRONG = "-not-the-secret"
_TIMES = re.compile(r"\((\d{4}-\d\d-\d\dT[\d:+.-]+Z?)\)")
_WRITTEN = ("Hello, are you open on Friday?", "Can I come a little later?", "C", "Thank you!", "STOP", "START")

Tell = Callable[[dict[str, Any]], None]
Job = Callable[[], "list[_Answer]"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Door:
    """A webhook: where it is, and what the provider proves itself with there."""

    url: str
    secret: str


@dataclass(slots=True)
class Town:
    """Who calls and texts whom in a scene, and what was answered. ``calls``: so many, and as many texts."""

    vapi: Door | None
    twilio: Door | None
    account_sid: str = "AC" + "0" * 32
    number: str = simulated_vapi.NUMBER
    assistant_id: str | None = None
    calls: int = 20
    seconds: float = 20.0
    tell: Tell = lambda _step: None
    steps: list[dict[str, Any]] = field(default_factory=list)

    def step(self, what: str, jobs: Iterable[Job]) -> None:
        """Do all jobs, some at once; add up what was answered."""
        began = time.monotonic()
        with ThreadPoolExecutor(AT_ONCE, "scene") as pool:
            answers = [answer for done in pool.map(lambda job: job(), jobs) for answer in done]
        taken = sorted(answer.milliseconds for answer in answers)
        told = {
            "what": what,
            "sent": len(answers),
            "answers": dict(sorted(Counter(answer.status for answer in answers).items())),
            "lost": sum(answer.lost for answer in answers),
            "median_ms": taken[len(taken) // 2] if taken else None,
            "slowest_ms": taken[-1] if taken else None,
            "seconds": round(time.monotonic() - began, 1),
        }
        self.steps.append(told)
        self.tell(told)


@dataclass(frozen=True, slots=True)
class _Answer:
    status: str
    milliseconds: float
    body: str = ""
    lost: bool = False  # given up by the provider without an answer that took it


def play(name: str, town: Town) -> dict[str, Any]:
    """Play the scene; returns ``scene``, ``steps`` (what, sent, answers by status, median and slowest), ``lost``.

    Raises InvalidInput for an unknown scene, without any webhook, or for a URL that is none.
    """
    scene = SCENES.get(name)
    if scene is None:
        raise InvalidInput(f"unknown scene; known are {', '.join(SCENES)}")
    if town.vapi is None and town.twilio is None:
        raise InvalidInput("a scene needs a webhook of Vapi's, of Twilio's, or both, each with its secret")
    scene(town)
    return {"scene": name, "steps": town.steps, "lost": sum(step["lost"] for step in town.steps)}


def _busy_day(town: Town) -> None:
    """Calls that ask, book among the same few hours and hang up, texts in between, and some of it twice."""
    town.step("calls and texts at once", _shuffled([*_calls(town), *_texts(town)]))
    events = _events(town)
    town.step("the news of other calls", _jobs(town, events))
    town.step("the same once more, as when a provider repeats", _jobs(town, events))


def _outage(town: Town) -> None:
    """Steady traffic, repeated as the providers do, while somebody pulls a plug; then what had gathered there."""
    few = replace(town, calls=max(1, town.calls // 10))
    until = time.monotonic() + town.seconds
    while time.monotonic() < until:
        town.step("steady", [*_calls(few, tries=TRIES), *_texts(few, tries=TRIES)])
        time.sleep(max(0.0, min(PAUSE_SECONDS, until - time.monotonic())))
    events = _events(town)
    town.step("what had gathered at the providers, out of order, some of it twice", _jobs(town, _shuffled(events * 2)))


def _shuffled(things: list[T]) -> list[T]:
    return random.sample(things, len(things))


def _moving_in(town: Town) -> None:
    """A number is pointed here with the wrong secret still, then the secret is mended and the providers repeat."""
    wrong = replace(town, vapi=_mistaken(town.vapi), twilio=_mistaken(town.twilio))
    events = _events(town, ended=False)
    town.step("signed with the wrong secret", _jobs(wrong, events))
    town.step("the secret is mended, the same again", _jobs(town, events))
    town.step("an ordinary day", [*_calls(town), *_texts(town)])


# A call's message by its type, or a text.
_Event = tuple[str, Scene] | Text


def _calls(town: Town, *, tries: int = 1) -> list[Job]:
    """Whole calls, each from its first ring to its report."""
    if town.vapi is None:
        return []
    door = town.vapi

    def whole(scene: Scene) -> list[_Answer]:
        def ask(kind: str, tries: int = 1, **changes: Any) -> _Answer:
            return _say(door, (kind, replace(scene, now=datetime.now(UTC), **changes)), tries=tries)

        start = f"{datetime.now(UTC) + timedelta(days=random.randrange(1, 6)):%Y-%m-%d}"  # noqa: S311 - no secret
        answers = [ask("assistant-request"), ask("status-update", tries)]
        answers.append(ask("tool-calls", tool="check_availability", arguments={"start": start}, tool_call_id=_id()))
        free = _TIMES.findall(answers[-1].body)
        if free:
            booking = {"start": random.choice(free), "name": "Ada Byron", "phone": str(scene.caller)}  # noqa: S311
            answers.append(ask("tool-calls", tool="book_appointment", arguments=booking, tool_call_id=_id()))
        return [*answers, ask("status-update", tries, status="ended"), ask("end-of-call-report", tries)]

    return [partial(whole, scene) for scene in _scenes(town)]


def _texts(town: Town, *, tries: int = 1) -> list[Job]:
    """As many texts as calls."""
    texts = [event for event in _events(town) if isinstance(event, Text)]
    return _jobs(town, texts, tries=tries)


def _events(town: Town, *, ended: bool = True) -> list[_Event]:
    """What nobody waits for: the news of calls, and texts."""
    events: list[_Event] = []
    if town.vapi is not None:
        kinds = ("status-update", "end-of-call-report") if ended else ("status-update",)
        events += [(kind, scene) for scene in _scenes(town) for kind in kinds]
    if town.twilio is not None:
        of = {"recipient": town.number, "account_sid": town.account_sid}
        written = [_WRITTEN[number % len(_WRITTEN)] for number in range(town.calls)]
        events += [Text(sender=_somebody(), body=body, **of) for body in written]
    return events


def _jobs(town: Town, events: Iterable[_Event], *, tries: int = 1) -> list[Job]:
    """The sending of each, at the door where it belongs."""

    def sending(event: _Event) -> list[_Answer]:
        door = town.twilio if isinstance(event, Text) else town.vapi
        return [_say(door, event, tries=tries)] if door else []

    return [partial(sending, event) for event in events]


def _scenes(town: Town) -> list[Scene]:
    scenes = [Scene(caller=_somebody(), number=town.number) for _ in range(town.calls)]
    return [replace(scene, assistant_id=town.assistant_id) for scene in scenes] if town.assistant_id else scenes


def _say(door: Door, event: _Event, *, tries: int = 1) -> _Answer:
    """Send one event, again as the provider would when it is not taken."""
    if isinstance(event, Text):
        outgoing = simulated_twilio.request("inbound", event, auth_token=door.secret, url=door.url)
    else:
        outgoing = simulated_vapi.request(*event, Proof(door.secret), url=door.url)
    began = time.monotonic()
    for left in reversed(range(tries)):
        try:
            told = send(outgoing)
            status, body = str(told["status"]), told["body"]
        except TemporaryFailure:
            status, body = NO_ANSWER, ""
        taken = status.startswith("2")
        if taken or status.startswith("4") or not left:
            break
        time.sleep(PAUSE_SECONDS)
    # Refused for good is not lost: whoever refuses has said so, and nobody repeats it.
    lost = not taken and not status.startswith("4")
    return _Answer(status, round((time.monotonic() - began) * 1000, 1), body, lost)


def _mistaken(door: Door | None) -> Door | None:
    return replace(door, secret=door.secret + WRONG) if door else None


def _somebody() -> str:
    return f"+1202555{random.randrange(100, 200):04d}"  # noqa: S311 - of the numbers kept for fiction


def _id() -> str:
    return f"call_{secrets.token_hex(12)}"


SCENES: dict[str, Callable[[Town], None]] = {
    "busy-day": _busy_day,
    "outage": _outage,
    "moving-in": _moving_in,
}
