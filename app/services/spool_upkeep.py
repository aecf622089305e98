"""The spool in an operator's hands: what waits on this host, taking it in, and taking a person out of it.

Owns what is shown of it (never what a line says) and how a line is found to speak of somebody. Concerns this host's
spool alone: what another host has on its disk nobody else can see.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_plus
from uuid import UUID

from app.errors import ConfigurationError, TemporaryFailure
from app.observability.logging import get_logger
from app.services.spool_drain import drain
from app.spool import Line, SpoolRefused

if TYPE_CHECKING:
    from app.services.platform import Platform
    from app.services.spool import Kept

WAIT_SECONDS = 10.0  # for a process that is just taking lines out
_SAID_BETWEEN = re.compile(r"[\s().\-/]")

log = get_logger(__name__)


def show(platform: Platform) -> dict[str, Any]:
    """Where it is, what waits in it, and why it takes nothing, if so."""
    found = platform.spool.contents()
    oldest = datetime.fromtimestamp(found.oldest, UTC) if found.oldest is not None else None
    return {
        "folder": str(platform.spool.folder.path.absolute()),
        "events": found.lines,
        "unverified": found.unproven,
        "oldest_at": oldest.isoformat(timespec="milliseconds").replace("+00:00", "Z") if oldest else None,
        "bytes": found.bytes,
        "most_bytes": platform.settings.spool_max_bytes,
        "set_aside": found.aside,
        "takes_more": platform.spool.fault() is None,
        "reason": platform.spool.fault(),
    }


def take_in(platform: Platform, *, set_aside: bool) -> dict[str, Any]:
    """Take in what waits; what became of it, and what is left. Raises DatabaseUnavailable, TemporaryFailure."""
    done = drain(platform, within_seconds=WAIT_SECONDS, with_aside=set_aside)
    if done is None:
        raise TemporaryFailure("another process is taking it in just now; see `spool list`", code="spool_busy")
    return {**asdict(done), "left": platform.spool.contents().lines}


def erase(platform: Platform, numbers: Collection[str], *, org_id: UUID | None = None) -> int:
    """Rewrite this host's spool without the lines that mention one of these phone numbers (E.164); how many went.

    Of one organization's integrations when it is given; a line that was not verified yet may be anybody's and goes
    too. One that no key opens is kept: nobody can read in it either. Raises TemporaryFailure when the spool is busy.
    """
    wanted = [re.sub(r"\D", "", number) for number in numbers]
    wanted = [digits for digits in wanted if digits]
    folder = platform.spool.folder
    until = time.monotonic() + WAIT_SECONDS

    def keep(line: Line) -> bool:
        if line.sealed is None:
            return True
        try:
            kept = platform.spool.read(line.sealed)
        except ConfigurationError:
            return True
        others = org_id is not None and kept.proven is not None and kept.proven.org_id != org_id
        return others or not _mentions(kept, wanted)

    try:
        with folder.draining(within_seconds=until - time.monotonic()) as mine:
            if not mine:
                if folder.path.is_dir():
                    raise TemporaryFailure("another process is taking in the spool just now", code="spool_busy")
                return 0
            gone = folder.rewrite(keep)
    except SpoolRefused as refused:
        raise TemporaryFailure(f"the spool cannot be rewritten: {refused}", code="spool_busy") from None
    if gone:
        log.info("spool.erased", lines=gone)
    return gone


def _mentions(kept: Kept, wanted: list[str]) -> bool:
    """Whether the request says one of the numbers, however it is written: escaped, spaced, without its plus."""
    text = f"{kept.request.url}\n{kept.request.body.decode(errors='replace')}"
    plain = _SAID_BETWEEN.sub("", unquote_plus(text))
    return any(digits in plain for digits in wanted)
