"""Out of the spool and into the database: in order, through the same intake as everything, repeating nothing.

Owns what becomes of each line: verified now if it was not when it came, as of that moment; refused for good if its
proof does not hold; set aside if nobody can make anything of it, so that it holds up no other. A line leaves the
spool after it is committed: a drain that dies in between commits it again, which is a duplicate and does nothing.
So does one that was stopped for so long that another process has taken over.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from app.errors import ConfigurationError, DatabaseUnavailable, MalformedEvent, RequestRefused
from app.integrations.events import InboundEvent
from app.models.deliveries import UNOWNED_ORG_ID
from app.models.inbox import NewDelivery
from app.models.integrations import find_by_token
from app.models.messages import record_consent
from app.observability import metrics
from app.observability.errors import report
from app.observability.logging import get_logger
from app.services import intake, routing, verification
from app.spool import Line, SpoolRefused

if TYPE_CHECKING:
    from app.services.platform import Platform
    from app.services.spool import Kept

MOST_LINES = 100
MOST_BYTES = 4_000_000
LOOK_SECONDS = 0.5
SILENT_SECONDS = 30.0  # as long as a worker's lease; between two signs of life lies one line, or one commit

log = get_logger(__name__)


@dataclass(slots=True)
class Drained:
    """What became of the lines: ``refused`` had no proof or no owner, ``aside`` needs a person."""

    stored: int = 0
    duplicates: int = 0
    refused: int = 0
    aside: int = 0

    @property
    def total(self) -> int:
        """All lines that left the spool."""
        return self.stored + self.duplicates + self.refused + self.aside


@dataclass(frozen=True, slots=True)
class _Origin:
    """Where an event comes from, as intake wants to know it."""

    org_id: UUID
    integration_id: UUID


class _NobodysAnyMore(Exception):
    """Its organization has been deleted since."""


def drain(
    platform: Platform,
    *,
    keep_going: Callable[[], bool] = lambda: True,
    within_seconds: float = 0.0,
    with_aside: bool = False,
) -> Drained | None:
    """Take lines out until none is left; what became of them. None when another process is at it.

    Raises DatabaseUnavailable when the database goes away: what is committed is committed, the rest waits.
    """
    folder = platform.spool.folder
    done = Drained()
    with platform.database.transaction(system=True) as session:
        find_by_token(session, "-")  # tables that are missing are no fault of a line's
    try:
        if folder.take_over(silent_seconds=SILENT_SECONDS):
            log.warning("spool.taken_over")
        with folder.draining(within_seconds=within_seconds) as mine:
            if not mine:
                return done if folder.is_empty() and not with_aside else None
            if with_aside:
                folder.take_back()
            while keep_going():
                batch = folder.read(most=MOST_LINES, most_bytes=MOST_BYTES)
                if batch.lines:
                    _take(platform, batch.lines, done)
                if batch.is_last and folder.remove_taken():
                    break
    except (SpoolRefused, OSError) as error:
        report(error, where="thread", event="spool.not_drained")
    finally:
        if done.total:
            log.info("spool.drained", **asdict(done))
    return done


def _take(platform: Platform, lines: list[Line], done: Drained) -> None:
    """Read each line, commit all, note that they are taken."""
    deliveries: list[tuple[Line, NewDelivery]] = []
    aside: list[Line] = []
    folder = platform.spool.folder
    for line in lines:
        folder.go_on()
        kept = _opened(platform, line)
        if kept is None:
            aside.append(line)
            continue
        try:
            deliveries.append((line, _as_delivery(platform, kept)))
        except DatabaseUnavailable:
            raise
        except (RequestRefused, _NobodysAnyMore) as refused:
            _refuse(kept, refused)
            done.refused += 1
        except Exception as error:  # noqa: BLE001 - one line that cannot be read must not hold up the others
            report(error, where="thread", event="spool.line_failed", provider=kept.provider)
            aside.append(line)
    folder.go_on()
    aside += _store(platform, deliveries, done)
    folder.go_on()
    if aside:
        folder.set_aside(aside)
        log.error("spool.set_aside", lines=len(aside))
        done.aside += len(aside)
    folder.note_taken(lines)


def _opened(platform: Platform, line: Line) -> Kept | None:
    """What the line holds; None for one that is damaged, or that no key opens."""
    if line.sealed is None:
        return None
    try:
        return platform.spool.read(line.sealed)
    except ConfigurationError:
        return None


def _store(platform: Platform, deliveries: list[tuple[Line, NewDelivery]], done: Drained) -> list[Line]:
    """Commit them; returns the lines of those that the database takes in no form."""
    if not deliveries:
        return []
    impossible: list[Line] = []
    for (line, one), taken in zip(deliveries, intake.store_late(platform, [one for _, one in deliveries]), strict=True):
        if taken is None:
            impossible.append(line)
            continue
        done.duplicates += taken.duplicate
        done.stored += not taken.duplicate
        metrics.webhook_unspooled(one.provider, "duplicate" if taken.duplicate else "stored")
        waited = round(max(0.0, time.time() - line.kept_at), 1)
        intake.tell(intake.Told(taken, one.org_id, one.provider, one.type, {"spooled_seconds": waited}))
    platform.bell.ring()
    return impossible


def _as_delivery(platform: Platform, kept: Kept) -> NewDelivery:
    """The line as it is to be stored. Raises RequestRefused, _NobodysAnyMore, DatabaseUnavailable."""
    origin, is_platform = _origin(platform, kept)
    try:
        event = _event(platform, kept)
    except MalformedEvent as error:
        malformed = intake.as_malformed(platform, origin, kept.provider, kept.request.body, reason=str(error))
        return replace(malformed, received_at=kept.received_at)
    if is_platform:
        owner, event = routing.owner(platform, origin.integration_id, event)
        origin = replace(origin, org_id=owner)
    if origin.org_id != UNOWNED_ORG_ID:
        if platform.directory.find_business(origin.org_id) is None:
            raise _NobodysAnyMore
        event = _with_consent_taken(platform, origin.org_id, event, kept.received_at)
    status = "processed" if kept.answer is not None and not kept.undone else "received"
    return intake.as_delivery(origin, event, status=status, answer=kept.answer, received_at=kept.received_at)


def _origin(platform: Platform, kept: Kept) -> tuple[_Origin, bool]:
    """The integration, and whether it is the platform's: as was proven, or as is found now."""
    if kept.proven is not None:
        return _Origin(kept.proven.org_id, kept.proven.integration_id), kept.proven.is_platform
    endpoint = platform.directory.endpoint(kept.provider, kept.token)
    return _Origin(endpoint.org_id, endpoint.integration_id), endpoint.is_platform


def _event(platform: Platform, kept: Kept) -> InboundEvent:
    """What the request tells, its proof looked at now, as of when it came, if it was not looked at then."""
    if kept.proven is not None:
        return replace(verification.read(kept.provider, kept.request), remark=kept.proven.remark)
    endpoint = platform.directory.endpoint(kept.provider, kept.token)
    return verification.receive(platform, endpoint, kept.request, now=kept.received_at)


def _with_consent_taken(platform: Platform, org_id: UUID, event: InboundEvent, said_at: datetime) -> InboundEvent:
    """STOP and START by themselves and first: they must not undo what the address has said since on another way."""
    if event.consent is None:
        return event
    address, opted_out = event.consent.address, event.consent.opted_out
    with platform.database.transaction(system=True) as session:
        record_consent(session, org_id, address, opted_out=opted_out, said_at=said_at)
    return replace(event, consent=None)


def _refuse(kept: Kept, refused: Exception) -> None:
    code = refused.code if isinstance(refused, RequestRefused) else "organization_gone"
    log.warning("spool.line_refused", provider=kept.provider, code=code, proven=kept.proven is not None)
    metrics.webhook_unspooled(kept.provider, "refused")


class SpoolKeeper:
    """One process's thread that empties the host's spool as soon as the database is back.

    Begins on first use, because threads do not survive a fork. While the database hangs it is the one that looks
    whether it answers again (``Database.answers``).
    """

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin; safe to call again."""
        if self._thread is None or not self._thread.is_alive():
            self._stopping.clear()
            self._thread = threading.Thread(target=self._run, name="spool", daemon=True)
            self._thread.start()

    def stop(self, timeout_seconds: float = 5.0) -> None:
        """Take out no more; the lines under way are waited for, at most that long."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout=timeout_seconds)

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_SECONDS):
            try:
                if not self._platform.spool.folder.is_empty() and self._platform.database.answers():
                    drain(self._platform, keep_going=lambda: not self._stopping.is_set())
            except (DatabaseUnavailable, ConfigurationError) as error:
                log.warning("spool.no_database", code=error.code)
            except Exception as error:  # noqa: BLE001 - the keeper must outlive one bad round
                report(error, where="thread", event="spool.keeper_failed")
