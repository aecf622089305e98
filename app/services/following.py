"""Following events as they come in and end, for somebody who watches.

Owns what is told of each, once, and in which order. Asks the database a bounded question each time; follows for
as long as it is listened to, and goes on when the database has been away.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy.orm import Session

from app.errors import DatabaseUnavailable
from app.models import following as rows
from app.models.deliveries import Delivery
from app.services import organizations
from app.services.readable import fields, plain

if TYPE_CHECKING:
    from app.services.platform import Platform

MOST = 1_000  # of each kind in one look
REMEMBERED = 100_000  # more than come in the time that is looked back
_TOLD = ("id", "org_id", "provider", "type", "event_id=event_key", "attempts", "error_code", "note")
Row = dict[str, Any]


def follow(
    platform: Platform, *, org_id: UUID | None = None, every_seconds: float = 1.0, seconds: float | None = None
) -> Iterator[Row]:
    """What comes in and what ends from now on: ``at``, ``what`` (received, processed, skipped, dead, or database_away
    when it cannot be asked) and the delivery's ids. Ends after ``seconds``, or never. Raises NotFound.
    """
    began = time.monotonic()
    with platform.database.transaction(system=True) as session:
        if org_id is not None:
            organizations.get(session, org_id)
        watch = _Watch(org_id, *rows.where_it_begins(session))
    away = False
    while seconds is None or time.monotonic() - began < seconds:
        try:
            with platform.database.transaction(system=True) as session:
                news = watch.look(session)
            away = False
        except DatabaseUnavailable:
            news = [] if away else [{"at": plain(datetime.now(UTC)), "what": "database_away"}]
            away = True
        yield from news
        if away or not watch.is_behind:
            time.sleep(every_seconds)


class _Watch:
    """How far it has been told. ``is_behind``: there was more than one look takes."""

    def __init__(self, org_id: UUID | None, newest: int, now: datetime) -> None:
        self.is_behind = False
        self._org_id = org_id
        self._newest, self._since = newest, now
        self._began, self._began_at = newest, now
        self._told: dict[tuple[int, datetime | None], None] = {}

    def look(self, session: Session) -> list[Row]:
        """What is new, in order of time."""
        # Endings first: a row that ends between the two questions is the next look's, and is never told half.
        ended = rows.list_ended(session, org_id=self._org_id, since=self._since, most=MOST)
        arrived = rows.list_arrived(session, org_id=self._org_id, after=self._newest, most=MOST)
        news = [
            (row.received_at, 0, _row(row, row.received_at, "received"))
            for row in arrived
            if row.id > self._began and self._is_new((row.id, None))
        ]
        for row in ended:
            assert row.finished_at is not None
            if row.finished_at >= self._began_at and self._is_new((row.id, row.finished_at)):
                news.append((row.finished_at, 1, _row(row, row.finished_at, row.status)))
        self._newest = max([self._newest, *(row.id for row in arrived)])
        last = ended[-1].finished_at if ended else None
        if last is not None:
            # A full look goes on where it ended, or a flood of endings would be the same ones again and again.
            self._since = last if len(ended) >= MOST else max(self._since, last - rows.TIME_BACK)
        self.is_behind = len(ended) >= MOST or len(arrived) >= MOST
        while len(self._told) > REMEMBERED:
            self._told.pop(next(iter(self._told)))
        return [row for _, _, row in sorted(news, key=lambda one: one[:2])]

    def _is_new(self, news: tuple[int, datetime | None]) -> bool:
        if news in self._told:
            return False
        self._told[news] = None
        return True


def _row(delivery: Delivery, at: datetime, what: str) -> Row:
    told = fields(delivery, _TOLD)
    if what == "received":
        del told["attempts"], told["error_code"]
    return {"at": plain(at), "what": what, **told}
