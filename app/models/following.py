"""What has come in and what has ended since a moment ago: the two questions of somebody who watches.

Both are answered by an index and are bounded. A row may become visible a little after others with a higher id or
a later date, because ids are drawn and dates are taken before a commit: so each question looks back a little, and
whoever asks leaves out what has been told.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from app.models.deliveries import CANARY_ORG_ID, Delivery

IDS_BACK = 500
TIME_BACK = timedelta(seconds=5)


def where_it_begins(session: Session) -> tuple[int, datetime]:
    """The highest id there is, and the time, by the database's clock as all dates are."""
    newest, now = session.execute(select(select(func.max(Delivery.id)).scalar_subquery(), func.now())).one()
    return newest or 0, now


def list_arrived(session: Session, *, org_id: UUID | None, after: int, most: int) -> Sequence[Delivery]:
    """What came in after (or a little before) the one with this id, in order of intake; no canaries."""
    statement = select(Delivery).where(Delivery.id > after - IDS_BACK, _wanted(org_id))
    recent = Delivery.received_at > func.now() - TIME_BACK
    return session.scalars(
        statement.where((Delivery.id > after) | recent).order_by(Delivery.id).limit(most + IDS_BACK)
    ).all()


def list_ended(session: Session, *, org_id: UUID | None, since: datetime, most: int) -> Sequence[Delivery]:
    """What ended since then, in order of ending; no canaries."""
    statement = select(Delivery).where(Delivery.finished_at >= since, _wanted(org_id))
    return session.scalars(statement.order_by(Delivery.finished_at, Delivery.id).limit(most)).all()


def _wanted(org_id: UUID | None) -> ColumnElement[bool]:
    return Delivery.org_id != CANARY_ORG_ID if org_id is None else Delivery.org_id == org_id
