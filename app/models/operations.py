"""The house's own books: who holds a single role just now, and what operators did."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Identity, delete, func, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from app.models.base import Base, CreatedAt, OrgId


class Singleton(Base):
    """A role that one process of all holds for a time. A row, because session locks end at a pooler."""

    __tablename__ = "singletons"

    name: Mapped[str] = mapped_column(primary_key=True)
    holder: Mapped[str]
    until: Mapped[datetime]


class OperatorAction(Base):
    """The audit trail: who did what to which delivery or organization."""

    __tablename__ = "operator_actions"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    org_id: Mapped[OrgId] = mapped_column(index=True)
    actor: Mapped[str]
    action: Mapped[str]
    subject: Mapped[str]
    details: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    at: Mapped[CreatedAt]


def hold_singleton(session: Session, name: str, *, holder: str, lease: timedelta) -> bool:
    """Take or renew the role; False while another process holds it.

    A lease that ends later than any can was taken before the database's clock was set back: it is over.
    """
    row = insert(Singleton).values(name=name, holder=holder, until=func.now() + lease)
    held = session.execute(
        row.on_conflict_do_update(
            index_elements=[Singleton.name],
            set_={"holder": holder, "until": func.now() + lease},
            where=or_(
                Singleton.until < func.now(), Singleton.until > func.now() + 2 * lease, Singleton.holder == holder
            ),
        ).returning(Singleton.name)
    ).first()
    return held is not None


def release_singleton(session: Session, name: str, *, holder: str) -> None:
    """Give the role back, if it is still held."""
    session.execute(delete(Singleton).where(Singleton.name == name, Singleton.holder == holder))


def has_action(session: Session, org_id: UUID, *, action: str, subject: str) -> bool:
    """Whether anybody did this to the subject before."""
    found = select(OperatorAction.id).where(
        OperatorAction.org_id == org_id, OperatorAction.action == action, OperatorAction.subject == subject
    )
    return session.scalar(found.limit(1)) is not None


def list_actions(session: Session, org_id: UUID, *, action: str, subject: str) -> list[OperatorAction]:
    """Who did this to the subject, the first one first, at most a hundred."""
    found = select(OperatorAction).where(
        OperatorAction.org_id == org_id, OperatorAction.action == action, OperatorAction.subject == subject
    )
    return list(session.scalars(found.order_by(OperatorAction.id).limit(100)))


def read_date(session: Session, name: str) -> datetime | None:
    """The date that was kept under this name (``keep_date``)."""
    return session.scalar(select(Singleton.until).where(Singleton.name == name))


def keep_date(session: Session, name: str, at: datetime, *, holder: str) -> None:
    """Keep a date for all processes, such as when something is due again or how far it has come."""
    row = insert(Singleton).values(name=name, holder=holder, until=at)
    session.execute(row.on_conflict_do_update(index_elements=[Singleton.name], set_={"holder": holder, "until": at}))


def take_if_due(session: Session, name: str, *, next_at: datetime, late_by: timedelta, holder: str) -> bool:
    """Whether the kept date passed more than ``late_by`` ago, or none is kept; then it becomes ``next_at``.

    One of several processes that ask at once is told so.
    """
    row = insert(Singleton).values(name=name, holder=holder, until=next_at)
    taken = session.execute(
        row.on_conflict_do_update(
            index_elements=[Singleton.name],
            set_={"holder": holder, "until": next_at},
            where=Singleton.until < func.now() - late_by,
        ).returning(Singleton.name)
    ).first()
    return taken is not None


def forget_expired_dates(session: Session, *, prefix: str) -> None:
    """Delete what was kept or held under names that begin so, and is past."""
    session.execute(
        delete(Singleton).where(Singleton.name.startswith(prefix, autoescape=True), Singleton.until < func.now())
    )
