"""What programs read: one organization's deliveries, calls, texts and appointments, in pages or one by one.

Owns the cursor, and that every read is made as the tenant with a short time limit: what is another
organization's is not there. Which facts of a row are shown is ``inspection.py``'s.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from uuid import UUID

from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from app.errors import InvalidInput, NotFound, TemporaryFailure
from app.models import Appointment, Call, Delivery, Message, pages
from app.models.pages import Listing, Position, Wanted
from app.services import inspection

if TYPE_CHECKING:
    from app.services.platform import Platform

T = TypeVar("T", Delivery, Call, Message, Appointment)
STATEMENT_TIMEOUT_MS = 5_000
LONGEST_PAGE = 200
LARGEST_ID = 2**63 - 1
_CANCELED = "57014"


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """What programs may read: how it is listed, shown in a list and shown alone, and what stands in its cursors."""

    listing: Listing[T]
    show: Callable[[T], dict[str, Any]]
    read_position: Callable[[list[Any]], Position]


def _by_moment(parts: list[Any]) -> Position:
    moment, key = parts
    at = datetime.fromisoformat(moment)
    if at.tzinfo is None:
        raise ValueError
    return at.astimezone(UTC), UUID(key)


def _by_number(parts: list[Any]) -> Position:
    (number,) = parts
    if type(number) is not int or not 0 < number <= LARGEST_ID:
        raise ValueError
    return (number,)


DELIVERIES = Kind(pages.DELIVERIES, inspection.show_delivery, _by_number)
CALLS = Kind(pages.CALLS, inspection.show_call, _by_moment)
MESSAGES = Kind(pages.MESSAGES, inspection.show_message, _by_moment)
APPOINTMENTS = Kind(pages.APPOINTMENTS, inspection.show_appointment, _by_moment)


def page(
    platform: Platform,
    kind: Kind[T],
    org_id: UUID,
    *,
    limit: int,
    cursor: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    equal: Mapping[str, Any],
) -> dict[str, Any]:
    """``data``, at most ``limit`` of them, the newest first, and ``next_cursor`` (None at the end).

    A filter in ``equal`` that is None does not filter. Raises InvalidInput(code="invalid_cursor") and
    TemporaryFailure(code="too_slow").
    """
    wanted = Wanted(
        limit=min(limit, LONGEST_PAGE) + 1,  # one more tells whether there is a next page
        after=_read_cursor(cursor, kind.read_position) if cursor is not None else None,
        since=since,
        until=until,
        equal={name: value for name, value in equal.items() if value is not None},
    )
    with reading(platform, org_id) as session:
        rows = pages.list_page(session, kind.listing, org_id, wanted)
        shown = [kind.show(row) for row in rows[: wanted.limit - 1]]
    is_last = len(rows) < wanted.limit
    return {"data": shown, "next_cursor": None if is_last else _write_cursor(kind.listing.position(rows[-2]))}


def one(platform: Platform, kind: Kind[T], org_id: UUID, key: UUID | int) -> dict[str, Any]:
    """One of them; raises NotFound, also for another organization's."""
    with reading(platform, org_id) as session:
        row = pages.find_one(session, kind.listing.row, org_id, key)
        if row is None:
            raise NotFound("there is no such thing here")
        return kind.show(row)


def delivery(platform: Platform, org_id: UUID, delivery_id: int) -> dict[str, Any]:
    """One delivery with every attempt, what it said and what was answered. Raises NotFound."""
    with reading(platform, org_id) as session:
        return inspection.delivery_in_full(session, delivery_id)


@contextmanager
def reading(platform: Platform, org_id: UUID) -> Iterator[Session]:
    """A transaction as the tenant; raises TemporaryFailure(code="too_slow") for a statement of more than 5 s."""
    try:
        with platform.database.transaction(org_id, statement_timeout_ms=STATEMENT_TIMEOUT_MS) as session:
            yield session
    except DBAPIError as error:
        if getattr(error.orig, "pgcode", None) != _CANCELED:
            raise
        raise TemporaryFailure("it took too long; ask for a shorter time or fewer rows", code="too_slow") from None


def _write_cursor(position: Position) -> str:
    said = json.dumps([part if isinstance(part, int) else str(part) for part in position])
    return base64.urlsafe_b64encode(said.encode()).decode().rstrip("=")


def _read_cursor(cursor: str, read_position: Callable[[list[Any]], Position]) -> Position:
    """Where the last page ended. Nothing secret: it is read under the same row-level security."""
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        return read_position(json.loads(base64.b64decode(padded, altchars=b"-_", validate=True)))
    except (binascii.Error, ValueError, TypeError, AttributeError, OverflowError):
        raise InvalidInput("the cursor is not one that was given here", code="invalid_cursor") from None
