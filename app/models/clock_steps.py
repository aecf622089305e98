"""The database's clock, when it was set back: what was dated while it was ahead would wait for it to come again.

Owns the noticing, by the end of a role's lease, and the moving of dates. Leases end by themselves (``lanes.py``).
"""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.models.deliveries import UNFINISHED


def set_back_by(session: Session, role: str, *, lease: timedelta) -> timedelta:
    """By how much the clock is behind where it was when the role was last held or renewed; zero when it is not.

    To be asked before the role is renewed, which sets the mark anew. At most a renewal's pause is missed.
    """
    found = text("SELECT until - now() FROM singletons WHERE name = :role")
    ahead: timedelta | None = session.execute(found, {"role": role}).scalar()
    return max(timedelta(0), ahead - lease) if ahead is not None else timedelta(0)


def pull_forward(session: Session, by: timedelta) -> int:
    """Move the dates of all unfinished deliveries that lie ahead back with the clock; how many.

    What was dated before the clock went ahead comes that much too early, which costs a look. Locks the lanes
    first and in order, as intake does. Leases are left alone: their ends are seen to be impossible.
    """
    session.execute(text("SELECT FROM lanes WHERE due_at > now() ORDER BY org_id, lane_key FOR UPDATE"))
    moved = session.execute(
        text(
            "UPDATE webhook_delivery_log SET next_attempt_at = greatest(now(), next_attempt_at - :by)"
            f" WHERE {UNFINISHED} AND next_attempt_at > now() RETURNING 1"
        ),
        {"by": by},
    )
    count = len(moved.all())
    session.execute(
        text("UPDATE lanes SET due_at = greatest(now(), due_at - :by) WHERE due_at > now() AND token IS NULL"),
        {"by": by},
    )
    return count
