"""One comparison with all providers: who is asked, for what time, and what is said of it.

Owns that one process of all compares at a time, that one integration's trouble is not another's, and how far each has
been compared. What is missing goes through the same intake as an event; nothing older than the window does.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

from app.errors import ConfigurationError, DatabaseUnavailable, InvalidInput, TemporaryFailure, VoicedeskError
from app.models.operations import hold_singleton, release_singleton
from app.models.reconciliations import list_waiting, note_comparison
from app.observability.logging import get_logger
from app.services import organizations
from app.services.readable import plain
from app.services.reconciliation import calendar, twilio, vapi
from app.services.reconciliation.tally import Tally, Window

if TYPE_CHECKING:
    from app.services.directory import Endpoint
    from app.services.platform import Platform

ROLE, LEASE = "reconcile", timedelta(minutes=5)
UNDER_WAY = timedelta(minutes=5)  # what is younger may still be told, by a webhook or its retry
OVERLAP = timedelta(minutes=10)  # lists lag behind
MOST = 200  # integrations of a provider a run; the next run begins with the others
MOST_WITH_VAPI = 10_000  # they are looked up, not asked one by one
MOST_SECONDS = 600.0

log = get_logger(__name__)


class BusyComparing(TemporaryFailure):
    """Another process is comparing just now."""

    code = "reconciling"


class Stopped(Exception):
    """The run is to end here; what is left waits for the next."""


def compare(
    platform: Platform,
    *,
    org_id: UUID | None = None,
    since: datetime | None = None,
    dry_run: bool = False,
    keep_going: Callable[[], bool] = lambda: True,
) -> dict[str, Any]:
    """Compare, and fill in what never arrived. Safe to repeat and to interrupt.

    From where each integration was last compared, or from ``since``, but never from before the window
    (RECONCILE_WINDOW_HOURS). Returns ``integrations`` (each ``id``, ``org_id``, ``provider``, ``since``, ``theirs``,
    ``ours``, ``missing``, ``filled``, ``foreign``, ``more`` and ``error``), their sums, ``complete`` and ``dry_run``.
    Raises BusyComparing, NotFound, InvalidInput for a ``since`` before the window, DatabaseUnavailable.
    """
    run = _Run(platform, org_id, since, dry_run=dry_run, keep_going=keep_going)
    try:
        run.all()
    finally:
        run.end()
    return run.told()


class _Run:
    """One comparison and what it has found so far."""

    def __init__(
        self,
        platform: Platform,
        org_id: UUID | None,
        since: datetime | None,
        *,
        dry_run: bool,
        keep_going: Callable[[], bool],
    ) -> None:
        self._platform = platform
        self._org_id = org_id
        self._now = datetime.now(UTC)
        self._oldest = self._now - timedelta(hours=platform.settings.reconcile_window_hours)
        if since is not None and since < self._oldest - timedelta(minutes=1):
            raise InvalidInput("nothing older than RECONCILE_WINDOW_HOURS is compared; name a later moment")
        self._since = since
        self._dry_run = dry_run
        self._keep_going = keep_going
        self._name = f"{socket.gethostname()}:{os.getpid()}:{threading.get_ident()}"
        self._ends_at = time.monotonic() + MOST_SECONDS
        self._complete = True
        self._told: list[dict[str, Any]] = []

    def all(self) -> None:
        """Every provider, each integration in a try of its own."""
        self._step()
        if self._org_id is not None:
            with self._platform.database.transaction(system=True) as session:
                organizations.get(session, self._org_id)
        try:
            self._calls()
            for provider, compare_one in ((twilio.PROVIDER, twilio.compare), (calendar.PROVIDER, calendar.compare)):
                for endpoint, until in self._endpoints(provider, of=self._org_id, most=MOST):
                    tally = Tally()
                    window = self._window(until)
                    code = self._try(partial(compare_one, self._platform, endpoint, window, tally))
                    self._note(endpoint, window, tally, code)
        except Stopped:
            self._complete = False

    def end(self) -> None:
        """Give the role back."""
        with self._platform.database.transaction(system=True) as session:
            release_singleton(session, ROLE, holder=self._name)

    def told(self) -> dict[str, Any]:
        """What was found."""
        sums = {name: sum(one[name] for one in self._told) for name in ("theirs", "ours", "missing", "filled")}
        say = log.warning if sums["missing"] else log.info
        say("reconciled", **sums, integrations=len(self._told), dry_run=self._dry_run, complete=self._complete)
        return {**sums, "integrations": self._told, "complete": self._complete, "dry_run": self._dry_run}

    def _calls(self) -> None:
        """All integrations with Vapi at once: one private key lists the calls of them all."""
        found = self._endpoints(vapi.PROVIDER, of=None, most=MOST_WITH_VAPI)
        if not found or self._platform.vapi is None:
            return
        known = [until for _, until in found if until is not None]
        window = self._window(min(known) if len(known) == len(found) else None)
        endpoints = [endpoint for endpoint, _ in found]
        asked = [one for one in endpoints if one.is_platform or self._org_id in (None, one.org_id)]
        tallies = {endpoint.integration_id: Tally() for endpoint in asked}
        if not asked:
            return
        code = self._try(lambda: vapi.compare(self._platform, endpoints, window, tallies))
        for endpoint in asked:
            self._note(endpoint, window, tallies[endpoint.integration_id], code)

    def _try(self, action: Callable[[], None]) -> str | None:
        """None, or the code of what went wrong: the next integration is compared all the same."""
        try:
            action()
        except DatabaseUnavailable:
            raise
        except VoicedeskError as error:
            if isinstance(error, BusyComparing):
                raise
            return error.code
        return None

    def _endpoints(self, provider: str, *, of: UUID | None, most: int) -> list[tuple[Endpoint, datetime | None]]:
        with self._platform.database.transaction(system=True) as session:
            rows = list_waiting(session, provider, org_id=of, limit=most)
        found = []
        for row, until in rows:
            try:
                found.append((self._platform.directory.opened(row), until))
            except ConfigurationError:  # sealed with a key that is gone: told elsewhere
                continue
        return found

    def _window(self, compared_until: datetime | None) -> Window:
        since = self._since or (compared_until - OVERLAP if compared_until else self._oldest)
        return Window(
            since=max(since, self._oldest),
            until=self._now - UNDER_WAY,
            org_id=self._org_id,
            dry_run=self._dry_run,
            keep_going=self._step,
        )

    def _step(self) -> None:
        """Before each request: still the leader, still wanted. Raises Stopped, BusyComparing."""
        if not self._keep_going() or time.monotonic() > self._ends_at:
            raise Stopped
        with self._platform.database.transaction(system=True) as session:
            if not hold_singleton(session, ROLE, holder=self._name, lease=LEASE):
                raise BusyComparing("another process is comparing just now")

    def _note(self, endpoint: Endpoint, window: Window, tally: Tally, code: str | None) -> None:
        self._told.append(
            plain(
                {
                    "id": endpoint.integration_id,
                    "org_id": None if endpoint.is_platform else endpoint.org_id,
                    "provider": endpoint.provider,
                    "since": window.since,
                    **{
                        name: getattr(tally, name)
                        for name in ("theirs", "ours", "missing", "filled", "foreign", "more")
                    },
                    "error": code,
                }
            )
        )
        if self._dry_run:
            return
        whole = code is None and self._org_id is None and self._since is None
        with self._platform.database.transaction(system=True) as session:
            note_comparison(
                session,
                endpoint.integration_id,
                compared_until=window.until if whole else None,
                theirs=tally.theirs,
                missing=tally.missing,
                error_code=code,
            )
