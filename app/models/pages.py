"""One organization's rows of a table, a page at a time, the newest first.

Owns the order of a page: by columns that an index has and that end in a unique one, so that what comes in
between two pages moves nothing. Knows four tables; what of a row is shown is not decided here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

from sqlalchemy import select, text, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.models.appointments import Appointment
from app.models.calls import Call
from app.models.deliveries import LISTED, Delivery, as_asked
from app.models.messages import Message

T = TypeVar("T", Delivery, Call, Message, Appointment)
Position = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Listing(Generic[T]):
    """A table as a list: ``moment`` is what its since and until speak of, ``order`` what it is sorted by.

    ``said``: what is true of every row, and has to be said to use the index that is in this order.
    """

    row: type[T]
    moment: InstrumentedAttribute[datetime]
    order: tuple[InstrumentedAttribute[Any], ...]
    said: str = "true"

    def position(self, row: T) -> Position:
        """Where the row stands in the list."""
        return tuple(getattr(row, column.key) for column in self.order)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Rows from ``since`` on and before ``until``, as ``equal`` says, below the row that stood at ``after``."""

    limit: int
    after: Position | None = None
    since: datetime | None = None
    until: datetime | None = None
    equal: Mapping[str, Any] = field(default_factory=dict)


DELIVERIES = Listing(Delivery, Delivery.received_at, (Delivery.id,), said=LISTED)
CALLS = Listing(Call, Call.created_at, (Call.created_at, Call.id))
MESSAGES = Listing(Message, Message.created_at, (Message.created_at, Message.id))
APPOINTMENTS = Listing(Appointment, Appointment.starts_at, (Appointment.starts_at, Appointment.id))


def list_page(session: Session, listing: Listing[T], org_id: UUID, wanted: Wanted) -> Sequence[T]:
    """At most ``wanted.limit`` rows of one organization, the newest first."""
    row = listing.row
    statement = as_asked(select(row).where(row.org_id == org_id, text(listing.said)), wanted.equal)
    if wanted.since is not None:
        statement = statement.where(listing.moment >= wanted.since)
    if wanted.until is not None:
        statement = statement.where(listing.moment < wanted.until)
    if wanted.after is not None:
        statement = statement.where(tuple_(*listing.order) < wanted.after)
    return session.scalars(statement.order_by(*(column.desc() for column in listing.order)).limit(wanted.limit)).all()


def find_one(session: Session, row: type[T], org_id: UUID, key: UUID | int) -> T | None:
    """The row with this id, if it is the organization's."""
    return session.scalar(select(row).where(row.org_id == org_id, row.id == key))
