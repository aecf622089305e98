"""The database's clock, when it was set back: what was dated while it was ahead would wait for it to come again.

Owns the mark that shows it, the latest moment at which anybody looked, and the moving of dates. Leases end by
themselves (``lanes.py``).
"""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.models.deliveries import UNFINISHED

STEP = timedelta(seconds=30)  # what is less is no step, and costs no more than it lasts
_MARK = "clock"


def set_back_by(session: Session) -> timedelta:
    """By how much the clock is behind the mark, for the one who is to do something about it; mostly zero.

    Sets the mark: a step is told once, to one of all who ask.
    """
    ahead: timedelta | None = session.execute(
        text("SELECT until - now() FROM singletons WHERE name = :mark"), {"mark": _MARK}
    ).scalar()
    if ahead is not None and timedelta(0) <= ahead <= STEP:
        return timedelta(0)
    was_ahead = ahead is not None and ahead > STEP
    taken = session.execute(
        text(
            "INSERT INTO singletons (name, holder, until) VALUES (:mark, '', now())"
            " ON CONFLICT (name) DO UPDATE SET until = now()"
            " WHERE singletons.until < now() OR singletons.until > now() + :step RETURNING 1"
        ),
        {"mark": _MARK, "step": STEP},
    ).first()
    return ahead if was_ahead and taken and ahead is not None else timedelta(0)


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
