"""Work the house gives itself: deliveries planned in the transaction that makes them necessary.

Owns the types of own work. A row here exists if and only if the business change beside it was
committed, so nothing is promised that nobody will do.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NotRequired, TypedDict, Unpack
from uuid import UUID, uuid4

from sqlalchemy.orm import Session

from app.models.deliveries import INTERNAL_PROVIDER
from app.models.inbox import NewDelivery, insert_own_work


class OwnWork(StrEnum):
    """What the house may ask itself to do."""

    SEND_MESSAGE = "message.send"
    CHECK_MESSAGE = "message.check"
    FINISH_APPOINTMENT = "appointment.finish"
    REMIND = "appointment.remind"
    SYNC_CALENDAR = "calendar.sync"
    WATCH_CALENDAR = "calendar.watch"
    FORWARD_EVENT = "event.forward"
    ERASE_FROM_CALENDAR = "event.erase"


class Wish(TypedDict):
    """What is to be done, and when.

    ``after``: so much later, by the database's clock, as all dates are; ours may be wrong. ``key`` is what it can
    be found by; two with the same are two all the same.
    """

    lane_key: str
    payload: dict[str, Any]
    due_at: NotRequired[datetime | None]
    after: NotRequired[timedelta | None]
    key: NotRequired[str | None]


def plan(session: Session, org_id: UUID, work: OwnWork, **wish: Unpack[Wish]) -> int:
    """Plan the work in the caller's transaction, the last thing in it (it locks the lane); ring after the commit."""
    return insert_own_work(session, [delivery_of(org_id, work, **wish)])[0]


def delivery_of(org_id: UUID, work: OwnWork, **wish: Unpack[Wish]) -> NewDelivery:
    """The same, for a statement that stores it with what makes it necessary."""
    return NewDelivery(
        org_id=org_id,
        provider=INTERNAL_PROVIDER,
        type=work,
        event_key=f"{work}:{wish.get('key') or uuid4()}",
        lane_key=wish["lane_key"],
        payload=wish["payload"],
        due_at=wish.get("due_at"),
        due_after=wish.get("after"),
    )
