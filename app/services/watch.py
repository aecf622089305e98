"""The watcher: one thread per process that sees what is wrong and has people told when that changes.

Owns when is looked, and who looks. Every process looks for what it may have lost by itself; one of all
(a row with a lease, as the sweeper has it) looks at the common things, tends canary and calendars, rolls the
ledger up, ends what is over and tells. What is wrong is alert_causes.py's business, what is said alerts.py's. Nothing
here runs in a request's thread, or holds one up. Begins on first use, because threads do not survive a fork.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import TYPE_CHECKING

from app.errors import DatabaseUnavailable, VoicedeskError
from app.models import alerts as rows
from app.models.operations import hold_singleton, release_singleton
from app.observability.errors import report
from app.observability.logging import get_logger
from app.services import alert_causes, calendar_channels, calendar_sync, ledger
from app.services.alert_causes import IN_REDIS, SHARED, TWICE, Cause, Look, Steadiness
from app.services.alert_notebook import Note, Notebook
from app.services.alert_texts import Telling
from app.services.alerts import Teller, mark_told, read_untold

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from app.services.platform import Platform

ROLE = "watcher"
LOOKS_TO_BE_SURE = 3  # a second apart: one slow answer is no outage
LOOK_AGAIN_SECONDS = 1.1  # Redis and the database are left alone for a second after a failure
SETTLING_SECONDS = 15.0  # after a start or an outage, until old work and an old canary say something
ROLL_UP_SECONDS = 300.0  # a little and often: a busy hour at once would hold the looks up
MOST_MESSAGES = 10  # a look; the rest waits for the next
STATEMENT_TIMEOUT_MS = 3_000
IN_COPIES = frozenset({"circuit_open"})  # each process has its own, a second old, and on a busy machine more
COPIES_LAG = timedelta(seconds=4)  # what another process has just seen is not over because ours does not show it yet

log = get_logger(__name__)


class Watcher:
    """One process's watcher."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._begin_anew()

    def start(self) -> None:
        """Begin; safe to call again."""
        if self._thread is None or not self._thread.is_alive():
            self._stopping.clear()
            self._begin_anew()
            self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)
            self._thread.start()

    def stop(self, timeout_seconds: float = 6.0) -> None:
        """Look no more. One look, one message or one piece of the ledger under way is waited for, at most that long;
        another process watches at once.
        """
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout=timeout_seconds)
            if not self._thread.is_alive():
                self._give_back_role()

    def tick(self) -> None:
        """Look once, note what changed, tell of it. Raises nothing that a look or a message may fail with."""
        local = list(self._look_here())
        try:
            elected = self._note_in_database(local)
            self._lost = 0
        except DatabaseUnavailable:
            self._lost += 1
            self._settled_at = time.monotonic() + SETTLING_SECONDS
            if self._lost >= LOOKS_TO_BE_SURE:
                self._note_elsewhere([Cause("database_lost"), *local])
            return
        if not elected:
            return
        try:
            self._look_for_all()
            self._tell()
        except DatabaseUnavailable:
            log.warning("watcher.no_database")  # the next look begins with it

    def _begin_anew(self) -> None:
        self._name = self._platform.process_name()
        self._redis = Steadiness()
        self._notebook = Notebook(self._platform.redis, name=self._name)
        self._teller = Teller(self._platform, self._stopping.wait)
        self._lost = 0  # looks in a row that the database did not answer
        self._settled_at = time.monotonic() + SETTLING_SECONDS
        self._once: set[str] = set()  # keys of the last look of which one is not enough
        self._told: set[tuple[str, bool]] = set()  # told, and not marked because the database went away
        self._elected = False
        self._rolled_up = float("-inf")

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.tick()
            except Exception as error:  # noqa: BLE001 - the watcher must outlive one bad round
                report(error, where="thread", event="watcher.failed")
            unsure = 0 < self._lost < LOOKS_TO_BE_SURE
            every = self._platform.settings.watch_seconds
            self._stopping.wait(min(every, LOOK_AGAIN_SECONDS) if unsure else every)

    # --- what this process may have lost -------------------------------------------------------

    def _look_here(self) -> Iterable[Cause]:
        platform = self._platform
        if platform.redis.configured:
            if not self._redis.saw(there=not self._surely(lambda: not platform.redis_answers())):
                yield Cause("redis_lost")  # which says that the limiter cannot count either
            elif self._surely(platform.quotas.cannot_count):
                yield Cause("limiter_cannot_count")
        yield from alert_causes.open_circuits(platform)
        yield from alert_causes.spool(platform)

    def _surely(self, wrong: Callable[[], bool]) -> bool:
        """Whether it is wrong at every look in a row, a second apart."""
        for number in range(LOOKS_TO_BE_SURE):
            if (number and self._stopping.wait(LOOK_AGAIN_SECONDS)) or not wrong():
                return False
        return True

    def _note_in_database(self, local: list[Cause]) -> bool:
        """Note what is wrong here, and what was noted while the database was away; whether this process is elected."""
        handed = {note.key: note for note in self._notebook.hand_over()}
        known = handed | {cause.key: cause for cause in local if cause.key not in handed}
        with self._platform.database.transaction(system=True, statement_timeout_ms=STATEMENT_TIMEOUT_MS) as session:
            self._note(session, known.values())
            self._elected = hold_singleton(session, ROLE, holder=self._name, lease=self._lease)
        self._notebook.forget(list(handed.values()))
        return self._elected

    def _note_elsewhere(self, causes: list[Cause]) -> None:
        """The database is away: note it where it can be noted, and tell from here."""
        for cause in causes:
            self._notebook.note(cause.key, kind=cause.kind, facts=cause.facts)
        if self._teller.silent:
            return
        untold = [Telling(note.key, note.kind, note.facts, note.began_at) for note in self._notebook.claim_untold()]
        while untold and not self._stopping.is_set():
            told = self._teller.tell(untold)
            for telling in told:
                self._notebook.told(telling.key)
            if not told:
                return
            untold = [telling for telling in untold if telling not in told]

    # --- what one process does for all ---------------------------------------------------------

    def _look_for_all(self) -> None:
        self._roll_up()
        self._tend_calendars()
        found: dict[str, Cause] = {}
        looked_for: set[str] = set()
        for look in (alert_causes.canary_look(self._redis), *SHARED):
            if self._stopping.is_set():
                return  # whoever watches next looks at all of it at once
            if (causes := self._take(look)) is not None:
                found |= {cause.key: cause for cause in causes}
                looked_for |= look.kinds
        if self._redis.lasts():  # then all processes know of the same circuits
            found |= {cause.key: cause for cause in alert_causes.open_circuits(self._platform)}
            looked_for.add("circuit_open")
        if self._platform.redis.configured and not self._redis.lasts():
            looked_for -= IN_REDIS
        clear = [cause for cause in found.values() if not cause.is_doubtful]
        unsure = {cause.key for cause in clear if cause.kind in TWICE}
        sure = [cause for cause in clear if cause.key not in unsure or cause.key in self._once]
        self._once = unsure if time.monotonic() >= self._settled_at else set()
        with self._platform.database.transaction(system=True, statement_timeout_ms=STATEMENT_TIMEOUT_MS) as session:
            self._note(session, sure)
            rows.end_gone(session, kinds=looked_for - IN_COPIES, present=found)  # also what is not sure enough to begin
            rows.end_gone(session, kinds=looked_for & IN_COPIES, present=found, unseen_for=COPIES_LAG)
            shared = {kind for look in SHARED for kind in look.kinds} | {"canary_missed", "workers_idle"}
            rows.end_unseen(session, looked_for=shared, unseen_for=self._unseen_for)

    def _take(self, look: Look) -> list[Cause] | None:
        """What it finds; None when it failed, which says nothing about its causes."""
        try:
            return list(look.find(self._platform))
        except DatabaseUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - one look that fails must not blind the others
            report(error, where="thread", event="watcher.look_failed", kinds=sorted(look.kinds))
            return None

    def _roll_up(self) -> None:
        if time.monotonic() - self._rolled_up < ROLL_UP_SECONDS:
            return
        self._rolled_up = time.monotonic()
        try:
            ledger.roll_up(self._platform, self._stopping)
        except DatabaseUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - rolling up can wait
            report(error, where="thread", event="watcher.not_rolled_up")

    def _tend_calendars(self) -> None:
        for tend in (calendar_sync.tend, calendar_channels.tend):
            if self._stopping.is_set():
                return
            try:
                tend(self._platform)
            except DatabaseUnavailable:
                raise
            except Exception as error:  # noqa: BLE001 - a calendar that is not tended must not blind the watcher
                report(error, where="thread", event="watcher.calendars_not_tended")

    def _tell(self) -> None:
        """Tell what is untold, one message after the other, while this process is the one that tells."""
        for _ in range(MOST_MESSAGES):
            with self._platform.database.transaction(system=True, statement_timeout_ms=STATEMENT_TIMEOUT_MS) as session:
                if not hold_singleton(session, ROLE, holder=self._name, lease=self._lease):
                    self._elected = False
                    return
                untold = self._mark_remembered(session, read_untold(session))
            if not untold or self._stopping.is_set():
                return
            told = self._teller.tell(untold)
            if not told:
                return
            self._remember(told)

    def _remember(self, told: list[Telling]) -> None:
        """Mark what was told; if the database goes away just now, the next round does."""
        keys = {_which(telling) for telling in told}
        self._told |= keys
        with self._platform.database.transaction(system=True, statement_timeout_ms=STATEMENT_TIMEOUT_MS) as session:
            mark_told(session, told)
        self._told -= keys
        for telling in told:
            if telling.ended_at is not None:
                self._notebook.hush(telling.key, seconds=self._window.total_seconds())

    def _mark_remembered(self, session: Session, untold: list[Telling]) -> list[Telling]:
        told = [telling for telling in untold if _which(telling) in self._told]
        if told:
            mark_told(session, told)
        return [telling for telling in untold if telling not in told]

    def _note(self, session: Session, found: Iterable[Cause | Note]) -> None:
        for one in sorted(found, key=lambda one: one.key):  # in order: other processes lock the same rows
            times = {"began_at": one.began_at, "told_at": one.told_at} if isinstance(one, Note) else {}
            rows.note(session, one.key, kind=one.kind, facts=one.facts, window=self._window, **times)

    def _give_back_role(self) -> None:
        """So that the next process watches at once, and not when the lease ends."""
        if not self._elected:
            return
        self._elected = False
        try:
            with self._platform.database.transaction(system=True) as session:
                release_singleton(session, ROLE, holder=self._name)
        except VoicedeskError:
            log.warning("watcher.no_database")  # the lease ends by itself

    @property
    def _window(self) -> timedelta:
        return timedelta(seconds=self._platform.settings.alert_window_seconds)

    @property
    def _lease(self) -> timedelta:
        return timedelta(seconds=3 * self._platform.settings.watch_seconds + 5)

    @property
    def _unseen_for(self) -> timedelta:
        """Longer than a process takes from look to look, so that what is still wrong there does not seem over."""
        return timedelta(seconds=2 * self._platform.settings.watch_seconds + 5)


def _which(telling: Telling) -> tuple[str, bool]:
    return telling.key, telling.ended_at is not None
