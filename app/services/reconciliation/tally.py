"""What a comparison counts, and within what time it looks. Owns no rule of any provider."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from app.integrations.events import InboundEvent
from app.models.deliveries import kept_events
from app.observability import metrics
from app.services import intake

if TYPE_CHECKING:
    from app.services.directory import Endpoint
    from app.services.platform import Platform

REMARK = "reconciled: its webhook never came"
SLICE = timedelta(hours=6)


@dataclass(frozen=True, slots=True)
class Window:
    """What is compared: from ``since`` (never older) until ``until``, which leaves webhooks under way their time.

    ``keep_going`` is asked before each request; it renews the leader's lease.
    """

    since: datetime
    until: datetime
    org_id: UUID | None
    dry_run: bool
    keep_going: Callable[[], None]

    def slices(self, *, overlap: timedelta = timedelta(0)) -> Iterator[tuple[datetime, datetime]]:
        """The time in pieces, the oldest first, beginning ``overlap`` earlier."""
        begin = self.since - overlap
        while begin < self.until:
            end = min(begin + SLICE, self.until)
            self.keep_going()
            yield begin, end
            begin = end


@dataclass
class Tally:
    """They have ``theirs``, we have ``ours``; ``missing`` were not here, of which ``filled`` were taken in.

    ``foreign``: of the account, and nothing to do with us. ``more``: a piece of time held more than may be listed.
    """

    theirs: int = 0
    ours: int = 0
    missing: int = 0
    filled: int = 0
    foreign: int = 0
    more: bool = False
    seen: set[str] = field(default_factory=set, repr=False)

    def meet(self, key: str) -> bool:
        """Whether this is the first time: pieces of time overlap."""
        fresh = key not in self.seen
        self.seen.add(key)
        return fresh


def take_in(platform: Platform, endpoint: Endpoint, event: InboundEvent, tally: Tally, *, dry_run: bool) -> None:
    """Count what has no row: it waits for its turn, or has died, or never came and goes the way of every event."""
    tally.theirs += 1
    with platform.database.transaction(system=True) as session:
        waits = kept_events(session, [(endpoint.integration_id, event.event_key)])
    if waits or (not dry_run and intake.accept(platform, endpoint, event).duplicate):
        tally.ours += 1
        return
    tally.missing += 1
    if not dry_run:
        tally.filled += 1
        metrics.reconciled(event.provider)
