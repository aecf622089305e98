"""Looks whether the database's clock was set back, and dates anew what would wait for it to come again.

Owns how often this process looks. Whoever claims looks: what is dated wrongly was accepted or tried, so
somebody claimed while the clock was ahead.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from app.models import clock_steps
from app.observability.logging import get_logger

if TYPE_CHECKING:
    from app.services.platform import Platform

LOOK_SECONDS = 1.0

log = get_logger(__name__)


class Clock:
    """One drain's look at the clock."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._looked = -LOOK_SECONDS

    def look(self) -> None:
        """Look, at most once a second. Raises DatabaseUnavailable."""
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        with self._platform.database.transaction(system=True) as session:
            behind = clock_steps.set_back_by(session)
            if not behind:
                return
            moved = clock_steps.pull_forward(session, behind)
        log.warning("clock.set_back", seconds=round(behind.total_seconds()), deliveries=moved)
