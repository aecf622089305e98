"""What the load generator knows by itself: what it sent, what was acknowledged, what callers were told.

Owns the list that the product is held to. Nothing here is read from the product's own tables.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from chaos.people import Business

LONGEST_ANSWER_SECONDS = 5.5
# How a tool's answer begins that promises an effect; anything else promises none, and allows one at most.
PROMISES = ("The text is on its way", "Booked for", "I've noted")


@dataclass(slots=True)
class Event:
    """A webhook with an identity of its own, however often it was posted.

    ``key`` is by what the product keeps it apart; ``reply_to`` a number that one text must reach because of it.
    """

    business: Business
    key: str
    lane: str
    reply_to: str | None = None
    buried: bool = False
    posts: int = 0
    acks: int = 0
    acknowledged_at: float | None = None


@dataclass(slots=True)
class Question:
    """What a caller asked, and what became of it. ``cut``: no answer came, because the connection was cut."""

    business: Business
    call_id: str
    tool_call_id: str
    tool: str
    phone: str = ""
    words: str = ""
    number: int = 0
    slot: datetime | None = None
    said: str = ""
    status: int | None = None
    seconds: float = 0.0
    cut: bool = False
    host: str = ""
    asked_at: float = field(default_factory=time.monotonic)

    def taken(self, host: str) -> None:
        """A web process on this host has the connection."""
        self.host = host

    def was_held(self, host: str, since: float, until: float) -> bool:
        """Whether a web process on this host held it at any moment of that span (of `time.monotonic`)."""
        return self.host == host and self.asked_at < until and self.asked_at + self.seconds > since

    @property
    def promised(self) -> bool:
        """Whether the caller was told that something will happen outside."""
        return self.tool in ("send_text", "book_appointment") and any(words in self.said for words in PROMISES)


@dataclass
class Books:
    """All that was sent while one fault was on. ``refused`` counts the posts of events that got no 2xx."""

    events: list[Event] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)
    refused: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _acknowledged: int = 0

    def acknowledge(self, event: Event) -> None:
        """The event was answered with 2xx."""
        with self._lock:
            event.acks += 1
            if event.acknowledged_at is None:
                event.acknowledged_at = time.monotonic()
                self._acknowledged += 1

    def refuse(self) -> None:
        """A post got another answer, or none."""
        with self._lock:
            self.refused += 1

    @property
    def acknowledged(self) -> int:
        """How many events were answered with 2xx, each counted once."""
        return self._acknowledged

    def answered(self) -> list[Question]:
        """The questions that got an answer."""
        return [question for question in self.questions if not question.cut]

    def quantile(self, share: float, of: Callable[[Question], float] = lambda question: question.seconds) -> float:
        """A quantile of how long answers took; 0 when nothing was asked."""
        found = sorted(of(question) for question in self.answered())
        return found[min(len(found) - 1, int(share * len(found)))] if found else 0.0
