"""Deletes what is finished and old, in small pieces. Never an event that is not finished.

Owns how long things are kept, how small a piece is, and that one process of all cleans at a time. A dedup
key goes some hours (KEEP_KEYS_HOURS) after its delivery was *finished*: retries alone may take longer than
a day, and a duplicate in that time must still be known. How long people's words are kept is each organization's
to say (`retention`). When it is done nightly is `nightly`'s.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from math import ceil
from typing import TYPE_CHECKING, Any

from sqlalchemy.orm import Session

from app.errors import TemporaryFailure
from app.models import expired, words
from app.models.expired import DEAD, FINISHED_WELL, Cursor, Piece
from app.models.integrations import forget_previous
from app.models.operations import hold_singleton, keep_date, read_date, release_singleton
from app.models.quarantine import KEEP_SECONDS, delete_older
from app.models.routing import bury_unowned
from app.models.text_dialogues import delete_ended
from app.observability.logging import get_logger
from app.services import retention

if TYPE_CHECKING:
    from app.services.platform import Platform

PIECE = 500
PAYLOADS = 50  # of payloads, which may be large
# Times what a piece took: intake has the disk and a core to itself for that long. With half of it a million rows were
# gone in five minutes on two busy cores, and the p95 of accepts beside it was twice what it was alone; with two, 1.4
# and 1.7 times. (Pieces of 200 are no gentler, and take three times as long.)
REST = 4.0
KEEP_ANSWERS = timedelta(days=30)
KEEP_QUESTIONS = timedelta(days=1)  # to customers by text, after they ended: until then a late answer is told so
KEEP_ENDED_ALERTS = timedelta(days=90)
WORDS = ("call_words", "text_words", "answer_words", "payload_words")
ROLE, LEASE = "cleanup", timedelta(minutes=2)
KEYS_DONE = "cleanup_keys_until"  # all keys of what was finished before this date are gone

Tell = Callable[[dict[str, int]], None]

log = get_logger(__name__)


class BusyCleaning(TemporaryFailure):
    """Another process is cleaning up just now."""

    code = "cleaning"


def clean_up(
    platform: Platform, *, tell: Tell | None = None, keep_going: Callable[[], bool] = lambda: True
) -> dict[str, Any]:
    """Delete all that is due to go, a piece a transaction. Safe to repeat, to interrupt and to run twice at once.

    Returns how many ``keys``, ``deliveries`` (with their payloads and attempts), ``dead``, ``answers``
    and ``alerts`` went, how many calls, texts, answers and payloads were emptied of words (``call_words`` and so
    on), ``seconds``, and ``complete`` (False: ``keep_going`` said no). ``tell`` hears of the
    numbers after each piece. Raises BusyCleaning, DatabaseUnavailable.
    """
    run = _Run(platform, tell, keep_going)
    began = time.monotonic()
    try:
        run.all()
    finally:
        run.end()
    done = {**run.gone, "seconds": round(time.monotonic() - began, 1), "complete": keep_going()}
    log.info("cleanup.done", **done)
    return done


def what_would_go(platform: Platform) -> dict[str, Any]:
    """The same numbers without deleting anything. Raises DatabaseUnavailable."""
    with platform.database.transaction(system=True, statement_timeout_ms=120_000) as session:
        ages = {name: age.total_seconds() for name, age in _ages(platform).items()}
        emptied = words.count_old(session, longest_days=_longest(platform))
        return {**expired.count_expired(session, **ages), **emptied, "dry_run": True}


def _ages(platform: Platform) -> dict[str, timedelta]:
    settings = platform.settings
    return {
        "keys": timedelta(hours=settings.keep_keys_hours),
        "deliveries": timedelta(days=settings.keep_deliveries_days),
        "dead": timedelta(days=settings.keep_dead_days),
        "answers": KEEP_ANSWERS,
        "alerts": KEEP_ENDED_ALERTS,
    }


def _longest(platform: Platform) -> int:
    """After so many days every finished delivery and every answer has gone, whatever they said."""
    ages = _ages(platform)
    return ceil(max(ages["deliveries"], ages["dead"], ages["answers"]) / timedelta(days=1))


class _Run:
    """One cleanup: its numbers so far, and the role it holds."""

    def __init__(self, platform: Platform, tell: Tell | None, keep_going: Callable[[], bool]) -> None:
        self._platform = platform
        self._tell = tell or (lambda _gone: None)
        self._keep_going = keep_going
        # The thread's too: in one process a command and the nightly run are two.
        self._name = f"{socket.gethostname()}:{os.getpid()}:{threading.get_ident()}"
        self._ages = {name: age.total_seconds() for name, age in _ages(platform).items()}
        self.gone = dict.fromkeys((*self._ages, *WORDS), 0)

    def all(self) -> None:
        """Every kind, one after the other."""
        self._keys()
        self._walk("deliveries", FINISHED_WELL)
        self._walk("dead", DEAD)
        self._repeat("answers", lambda session: self._old(expired.delete_answers, session, "answers"))
        self._repeat("alerts", lambda session: self._old(expired.delete_alerts, session, "alerts"))
        self._words()
        age = self._ages["dead"]
        while self._keep_going() and self._do(lambda s: bury_unowned(s, age_seconds=age, most=PIECE)) == PIECE:
            pass
        self._do(lambda session: delete_older(session, age_seconds=KEEP_SECONDS))
        self._do(forget_previous)
        self._do(lambda session: delete_ended(session, older_than=KEEP_QUESTIONS))

    def end(self) -> None:
        """Give the role back."""
        with self._platform.database.transaction(system=True) as session:
            release_singleton(session, ROLE, holder=self._name)

    def _keys(self) -> None:
        """From where the last cleanup came to, however many nights ago that was."""
        begun = self._do(lambda session: read_date(session, KEYS_DONE))
        cursor: Cursor | None = Cursor(begun) if begun else Cursor()
        while cursor is not None and self._keep_going():
            at: Cursor = cursor

            def piece(session: Session, at: Cursor = at) -> Piece:
                done = expired.delete_keys(session, at, age_seconds=self._ages["keys"], most=PIECE)
                if done.next is not None:
                    keep_date(session, KEYS_DONE, done.next.at, holder=self._name)
                return done

            done = self._do(piece)
            self._count("keys", done.deleted)
            cursor = done.next

    def _walk(self, name: str, statuses: tuple[str, ...]) -> None:
        cursor: Cursor | None = Cursor()
        while cursor is not None and self._keep_going():

            def piece(session: Session, at: Cursor = cursor) -> Piece:
                age = self._ages[name]
                return expired.delete_deliveries(session, at, statuses=statuses, age_seconds=age, most=PIECE)

            done = self._do(piece)
            self._count(name, done.deleted)
            cursor = done.next

    def _words(self) -> None:
        """What people said longer ago than their organization keeps it; what is deleted anyway has gone by now."""
        longest = _longest(self._platform)
        self._repeat("call_words", lambda session: words.empty_calls(session, most=PIECE))
        self._repeat("text_words", lambda session: words.empty_texts(session, most=PIECE))
        self._repeat("answer_words", lambda session: words.empty_answers(session, most=PIECE, longest_days=longest))
        for org_id in self._do(lambda session: words.list_shorter(session, than_days=longest)):
            after: int | None = 0
            while after is not None and self._keep_going():
                piece = partial(retention.empty_payloads, org_id=org_id, after=after, most=PAYLOADS)
                emptied, after = self._do(piece)
                self._count("payload_words", emptied)

    def _old(self, delete: Callable[..., int], session: Session, name: str) -> int:
        return delete(session, age_seconds=self._ages[name], most=PIECE)

    def _repeat(self, name: str, piece: Callable[[Session], int]) -> None:
        while self._keep_going():
            deleted = self._do(piece)
            self._count(name, deleted)
            if deleted < PIECE:
                return

    def _count(self, name: str, deleted: int) -> None:
        self.gone[name] += deleted
        self._tell(self.gone)

    def _do(self, piece: Callable[[Session], Any]) -> Any:
        """One short transaction, holding the role; then a rest in proportion."""
        began = time.monotonic()
        with self._platform.database.transaction(system=True) as session:
            if not hold_singleton(session, ROLE, holder=self._name, lease=LEASE):
                raise BusyCleaning
            result = piece(session)
        time.sleep(REST * (time.monotonic() - began))
        return result
