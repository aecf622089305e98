"""Deliveries: the queue of record. What came in (or was planned here), and what became of it.

Owns ``webhook_delivery_log``, its payloads and attempts, and the queries people ask of them. How
deliveries are claimed and finished is in ``lanes.py``; how they get in, in ``inbox.py``.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    func,
    select,
    text,
)
from sqlalchemy.orm import Mapped, Session, mapped_column

from app.models.base import Base, CreatedAt, OrgId


class DeliveryStatus(StrEnum):
    """Where a delivery stands. The first three are unfinished."""

    RECEIVED = "received"
    PROCESSING = "processing"
    RETRYING = "retrying"
    PROCESSED = "processed"
    SKIPPED = "skipped"
    DEAD = "dead"


UNFINISHED = "status IN ('received', 'processing', 'retrying')"
INTERNAL_PROVIDER = "voicedesk"
# Of events that nobody sent and that concern nobody: they only show that work moves. Not in organizations.
CANARY_ORG_ID = UUID("00000000-0000-4000-8000-0000000ca9a1")


class Delivery(Base):
    """One event on its way: the row is the promise given with the 200.

    No foreign key to organizations or integrations: intake has just looked the integration up, and a
    share lock on one organization's row in each insert would serialize its bursts.
    """

    __tablename__ = "webhook_delivery_log"
    __table_args__ = (
        CheckConstraint(
            "status IN ('received', 'processing', 'retrying', 'processed', 'skipped', 'dead')", name="status"
        ),
        Index("ix_deliveries_lane", "org_id", "lane_key", "id", postgresql_where=text(UNFINISHED)),
        Index("ix_deliveries_org", "org_id", "id"),
        Index("ix_deliveries_waiting", "waiting_on", "id", postgresql_where=text("waiting_on IS NOT NULL")),
        Index("ix_deliveries_finished", "finished_at", postgresql_where=text("finished_at IS NOT NULL")),
        Index("ix_deliveries_dead", "finished_at", postgresql_where=text("status = 'dead'")),
        # How a person finds an event: by the provider's id of it, and by its call or conversation.
        Index("ix_deliveries_event", "event_key"),
        Index("ix_deliveries_story", "lane_key", "id"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    org_id: Mapped[OrgId] = mapped_column(primary_key=True)
    integration_id: Mapped[UUID | None]
    provider: Mapped[str]
    type: Mapped[str]
    event_key: Mapped[str]
    lane_key: Mapped[str]
    status: Mapped[str] = mapped_column(server_default="received")
    attempts: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    crashes: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    received_at: Mapped[CreatedAt]
    occurred_at: Mapped[datetime | None]
    next_attempt_at: Mapped[datetime] = mapped_column(server_default=func.now())
    running_since: Mapped[datetime | None]
    held_since: Mapped[datetime | None]
    set_aside_at: Mapped[datetime | None]
    waiting_on: Mapped[str | None]
    finished_at: Mapped[datetime | None]
    error_code: Mapped[str | None]
    note: Mapped[str | None]


class Payload(Base):
    """What an event said, apart from the row that changes, so that a status update does not rewrite it."""

    __tablename__ = "webhook_payloads"
    __table_args__ = (
        ForeignKeyConstraint(
            ["org_id", "delivery_id"],
            ["webhook_delivery_log.org_id", "webhook_delivery_log.id"],
            ondelete="CASCADE",
        ),
    )

    delivery_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    org_id: Mapped[OrgId] = mapped_column(primary_key=True)
    body: Mapped[dict[str, Any] | None]
    raw: Mapped[bytes | None] = mapped_column(LargeBinary)
    answer: Mapped[dict[str, Any] | None]


class Attempt(Base):
    """One try at a delivery: begun before the handler starts, so that a crash leaves a trace."""

    __tablename__ = "delivery_attempts"
    __table_args__ = (
        ForeignKeyConstraint(
            ["org_id", "delivery_id"],
            ["webhook_delivery_log.org_id", "webhook_delivery_log.id"],
            ondelete="CASCADE",
        ),
        Index("ix_delivery_attempts_delivery", "org_id", "delivery_id", "id"),
        Index("ix_delivery_attempts_refused", "ended_at", postgresql_where=text("error_code = 'credentials_refused'")),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    org_id: Mapped[OrgId]
    delivery_id: Mapped[int] = mapped_column(BigInteger)
    number: Mapped[int] = mapped_column(SmallInteger)
    lane_token: Mapped[int] = mapped_column(BigInteger)
    process: Mapped[str]
    started_at: Mapped[CreatedAt]
    ended_at: Mapped[datetime | None]
    duration_ms: Mapped[int | None] = mapped_column(Integer)
    outcome: Mapped[str | None]
    error_code: Mapped[str | None]
    error: Mapped[str | None]


def list_deliveries(
    session: Session, *, org_id: UUID | None = None, status: str | None = None, limit: int = 100
) -> list[Delivery]:
    """The newest first, at most ``limit``; canaries only when asked for by their organization."""
    statement = select(Delivery).order_by(Delivery.id.desc()).limit(limit)
    wanted = Delivery.org_id != CANARY_ORG_ID if org_id is None else Delivery.org_id == org_id
    statement = statement.where(wanted)
    if status is not None:
        statement = statement.where(Delivery.status == status)
    return list(session.scalars(statement))


def find_delivery(session: Session, delivery_id: int) -> Delivery | None:
    """The delivery with this id, if this transaction may see it."""
    return session.scalar(select(Delivery).where(Delivery.id == delivery_id))


def find_payload(session: Session, delivery: Delivery) -> Payload | None:
    """What the delivery said."""
    return session.get(Payload, (delivery.id, delivery.org_id))


def list_attempts(session: Session, delivery: Delivery) -> list[Attempt]:
    """All tries, the first one first."""
    return list(
        session.scalars(
            select(Attempt)
            .where(Attempt.org_id == delivery.org_id, Attempt.delivery_id == delivery.id)
            .order_by(Attempt.id)
        )
    )
