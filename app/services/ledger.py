"""The books: whether every event that was accepted can be accounted for.

Owns when the two sides are compared and when old entries are rolled up. What is entered is entered by
intake and by endings, in their own transactions; nothing here corrects the books, because a difference
is something a person must look at.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from app.models import ledger
from app.models.ledger import Balance
from app.observability.logging import get_logger

if TYPE_CHECKING:
    from app.services.platform import Platform

PIECE = 20_000  # entries a transaction: about 0.1 s
ROLL_UP_SECONDS = 5.0  # a call; some 250,000 entries on a busy machine

log = get_logger(__name__)


def check(platform: Platform) -> Balance:
    """Both sides of the books in one snapshot; a difference is logged with the organizations it is in.

    Raises DatabaseUnavailable. Costs a scan of the ledger (10 ms for 200,000 entries of the last hour,
    70 ms for 1,400,000) and of the unfinished deliveries' index.
    """
    with platform.database.transaction(system=True) as session:
        found = ledger.balance(session)
        where = ledger.unbalanced(session) if found.difference else []
    if found.difference:
        organizations = {str(org_id): difference for org_id, difference in where}
        log.error("ledger.broken", difference=found.difference, organizations=organizations)
    return found


def roll_up(platform: Platform, stopping: threading.Event | None = None) -> int:
    """Carry entries older than an hour into one row an organization and provider; returns how many there were.

    In pieces, for at most ``ROLL_UP_SECONDS`` and until ``stopping``; what is left waits for the next call. Safe
    beside a second one, and after a crash at any point. Raises DatabaseUnavailable.
    """
    until = time.monotonic() + ROLL_UP_SECONDS
    total = 0
    while time.monotonic() < until and not (stopping and stopping.is_set()):
        with platform.database.transaction(system=True) as session:
            merged = ledger.carry_forward(session, most=PIECE)
        total += merged or 0
        if merged is None or merged < PIECE:
            break
    if total:
        log.info("ledger.rolled_up", entries=total)
    return total
