"""Alerts: what is wrong now, since when, and whether anybody has been told.

Owns ``alerts``. A row per cause that has ever been wrong, so that all processes of all machines tell of it
once, and the rules of a row's life: a cause that comes back soon after a person was told of its end is kept
as open and not told again, unless it is still there when the window has passed.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from app.models.base import Base, CreatedAt

MOST_AT_ONCE = 200


class Alert(Base):
    """One cause, such as ``circuit_open:twilio_sms``. ``ended_at`` is set while it is not wrong.

    ``told_at`` and ``end_told_at``: when a person was told of its beginning and of its end; None is still to be done.
    An open one with ``end_told_at`` has come back and is kept quiet.
    """

    __tablename__ = "alerts"

    key: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    facts: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    began_at: Mapped[CreatedAt]
    seen_at: Mapped[CreatedAt]
    ended_at: Mapped[datetime | None]
    told_at: Mapped[datetime | None]
    end_told_at: Mapped[datetime | None]

    def see(self, now: datetime, *, window: timedelta, began_at: datetime | None, told_at: datetime | None) -> None:
        """The cause is there (``began_at`` and ``told_at``: known from when this row could not be written)."""
        if began_at is not None and self.ended_at is not None and began_at <= self.ended_at:
            return  # old news: of a time that has been closed already
        if self.ended_at is not None and self.end_told_at is not None:
            self.began_at = began_at or now
        self.seen_at, self.ended_at = now, None
        quiet = self.end_told_at is not None and now - self.end_told_at < window
        if self.end_told_at is not None and (told_at is not None or not quiet):
            self.told_at, self.end_told_at = told_at, None
        elif self.told_at is None:
            self.told_at = told_at


def note(
    session: Session,
    key: str,
    *,
    kind: str,
    facts: dict[str, Any],
    window: timedelta,
    began_at: datetime | None = None,
    told_at: datetime | None = None,
) -> None:
    """The cause is there. Locks its row: note several in the order of their keys."""
    values: dict[str, Any] = {"key": key, "kind": kind, "facts": facts, "told_at": told_at}
    row = insert(Alert).values(**values, began_at=began_at or func.now())
    if session.execute(row.on_conflict_do_nothing().returning(Alert.key)).first():
        return
    found = session.execute(select(Alert, func.now()).where(Alert.key == key).with_for_update()).first()
    if found is None:
        return  # cleaned in this moment; the next look notes it anew
    alert, now = found
    alert.see(now, window=window, began_at=began_at, told_at=told_at)
    if alert.facts != facts:
        alert.facts = facts


def end_gone(
    session: Session, *, kinds: Collection[str], present: Collection[str], unseen_for: timedelta = timedelta(0)
) -> None:
    """End the open alerts of these kinds whose keys are not ``present``: somebody who sees all has looked.

    With ``unseen_for`` only those that nobody has seen for so long.
    """
    unseen = Alert.seen_at <= func.now() - unseen_for
    session.execute(
        update(Alert)
        .where(Alert.ended_at.is_(None), Alert.kind.in_(kinds), Alert.key.not_in(present), unseen)
        .values(ended_at=func.now())
    )


def end_unseen(session: Session, *, looked_for: Collection[str], unseen_for: timedelta) -> None:
    """End the open alerts that no process has seen for so long, except of kinds that are ``looked_for``."""
    session.execute(
        update(Alert)
        .where(Alert.ended_at.is_(None), Alert.kind.not_in(looked_for), Alert.seen_at < func.now() - unseen_for)
        .values(ended_at=func.now())
    )


def list_untold(session: Session) -> list[Alert]:
    """Those whose beginning, or else whose end, a person is yet to be told of; the oldest first."""
    ended = and_(Alert.ended_at.is_not(None), Alert.end_told_at.is_(None))
    statement = select(Alert).where(or_(Alert.told_at.is_(None), ended))
    return list(session.scalars(statement.order_by(Alert.began_at, Alert.key).limit(MOST_AT_ONCE)))


def mark_told(session: Session, keys: Collection[str]) -> None:
    """A person has been told of these beginnings."""
    session.execute(update(Alert).where(Alert.key.in_(keys), Alert.told_at.is_(None)).values(told_at=func.now()))


def mark_end_told(session: Session, keys: Collection[str]) -> None:
    """A person has been told of these ends; one that has come back meanwhile is quiet from now on."""
    told = and_(Alert.told_at.is_not(None), Alert.end_told_at.is_(None))
    session.execute(update(Alert).where(Alert.key.in_(keys), told).values(end_told_at=func.now()))


def list_open(session: Session) -> list[Alert]:
    """What is wrong now, the longest first."""
    return list(session.scalars(select(Alert).where(Alert.ended_at.is_(None)).order_by(Alert.began_at, Alert.key)))
