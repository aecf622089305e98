"""Deliveries: the queue of record. What came in (or was planned here), and what became of it.

Owns ``webhook_delivery_log``, its payloads and attempts, and the queries people ask of them. How
deliveries are claimed and finished is in ``lanes.py``; how they get in, in ``inbox.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Select,
    SmallInteger,
    func,
    select,
    text,
)
from sqlalchemy.orm import Mapped, Session, mapped_column

from app.models.base import Base, CreatedAt, OrgId

T = TypeVar("T")


class DeliveryStatus(StrEnum):
    """Where a delivery stands. The first three are unfinished."""

    RECEIVED = "received"
    PROCESSING = "processing"
    RETRYING = "retrying"
    PROCESSED = "processed"
    SKIPPED = "skipped"
    DEAD = "dead"


UNFINISHED = "status IN ('received', 'processing', 'retrying')"
# True of all. Who looks for an event key says it too, and PostgreSQL sees that the two indexes of keys have them all.
OPEN_OR_ENDED = f"({UNFINISHED} OR NOT ({UNFINISHED}))"
# True of all, too: who reads an organization's deliveries one after the other says the one, who looks for all of a call
# or conversation says the other, and may use the index for it. Nobody else may: to one who looks for what is open
# in a lane they would look as good as the index of lanes, whenever statistics know of few deliveries.
LISTED, TOLD = "id > 0", "lane_key <> ''"
INTERNAL_PROVIDER = "voicedesk"
# Of events that nobody sent and that concern nobody: they only show that work moves. Not in organizations.
CANARY_ORG_ID = UUID("00000000-0000-4000-8000-0000000ca9a1")
# Of what no organization owns: the platform's own, and events whose owner is not known yet. Not in organizations.
UNOWNED_ORG_ID = UUID("00000000-0000-4000-8000-00000000e0e0")
UNOWNED = "unowned"  # their error code


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
        Index("ix_deliveries_listed", "org_id", "id", postgresql_where=text(LISTED)),
        Index("ix_deliveries_waiting", "waiting_on", "id", postgresql_where=text("waiting_on IS NOT NULL")),
        Index("ix_deliveries_ended", "finished_at", "id", postgresql_where=text("finished_at IS NOT NULL")),
        Index("ix_deliveries_dead", "finished_at", postgresql_where=text("status = 'dead'")),
        # How a person finds an event: by the provider's id of it, and by its call or conversation.
        # The key is asked for as a whole and of both (``OPEN_OR_ENDED``), the lane by its beginning. Of what is open,
        # only who asks for a key can use the index: beside others it would be read from end to end.
        Index(
            "ix_deliveries_event", "event_key", postgresql_using="hash", postgresql_where=text(f"NOT ({UNFINISHED})")
        ),
        Index(
            "ix_deliveries_event_open", "event_key", postgresql_where=text(f"event_key IS NOT NULL AND {UNFINISHED}")
        ),
        Index(
            "ix_deliveries_told",
            "lane_key",
            postgresql_ops={"lane_key": "text_pattern_ops"},
            postgresql_where=text(TOLD),
        ),
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
    """What an event said, apart from the row that changes, so that a status update does not rewrite it.

    No foreign key, which would look the delivery up that was just made; a trigger deletes it with its delivery.
    """

    __tablename__ = "webhook_payloads"

    delivery_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    org_id: Mapped[OrgId] = mapped_column(primary_key=True)
    body: Mapped[dict[str, Any] | None]
    raw: Mapped[bytes | None] = mapped_column(LargeBinary)
    answer: Mapped[dict[str, Any] | None]
    words_removed_at: Mapped[datetime | None]


class Attempt(Base):
    """One try at a delivery: begun before the handler starts, so that a crash leaves a trace.

    As with payloads, a trigger and no foreign key.
    """

    __tablename__ = "delivery_attempts"
    __table_args__ = (
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


def as_asked(statement: Select[T], equal: Mapping[str, Any]) -> Select[T]:
    """Only rows whose columns are these; for an event key both indexes are of use."""
    if "event_key" in equal:
        statement = statement.where(text(OPEN_OR_ENDED))
    return statement.filter_by(**equal)


def list_deliveries(
    session: Session, *, org_id: UUID | None = None, limit: int = 100, **equal: str | None
) -> list[Delivery]:
    """The newest first, at most ``limit``; canaries only when asked for by their organization.

    ``equal``: a column's name and what is to stand there, such as ``status``; one that is None does not matter.
    """
    statement = select(Delivery).where(text(LISTED)).order_by(Delivery.id.desc()).limit(limit)
    wanted = Delivery.org_id != CANARY_ORG_ID if org_id is None else Delivery.org_id == org_id
    statement = as_asked(statement.where(wanted), {name: value for name, value in equal.items() if value})
    return list(session.scalars(statement))


def find_by_event(session: Session, org_id: UUID, event_key: str) -> int | None:
    """The newest delivery of the organization with this event key."""
    found = select(Delivery.id).where(Delivery.org_id == org_id, Delivery.event_key == event_key, text(OPEN_OR_ENDED))
    return session.scalar(found.order_by(Delivery.id.desc()).limit(1))


def find_delivery(session: Session, delivery_id: int) -> Delivery | None:
    """The delivery with this id, if this transaction may see it."""
    return session.scalar(select(Delivery).where(Delivery.id == delivery_id))


def kept_events(session: Session, events: Sequence[tuple[UUID, str]]) -> set[tuple[UUID, str]]:
    """Those of the events (integration and key) that have a delivery, in whatever state."""
    found = session.execute(
        select(Delivery.integration_id, Delivery.event_key).where(
            Delivery.event_key.in_([key for _, key in events]), text(OPEN_OR_ENDED)
        )
    )
    return {(row[0], row[1]) for row in found if row[0] is not None} & set(events)


def find_payload(session: Session, delivery: Delivery) -> Payload | None:
    """What the delivery said."""
    return session.get(Payload, (delivery.id, delivery.org_id))


def find_answer_given(session: Session, org_id: UUID, delivery_id: int) -> dict[str, Any] | None:
    """What was answered while somebody waited, if the event was answered and the organization's."""
    return session.scalar(select(Payload.answer).where(Payload.org_id == org_id, Payload.delivery_id == delivery_id))


def list_attempts(session: Session, delivery: Delivery) -> list[Attempt]:
    """All tries, the first one first."""
    return list(
        session.scalars(
            select(Attempt)
            .where(Attempt.org_id == delivery.org_id, Attempt.delivery_id == delivery.id)
            .order_by(Attempt.id)
        )
    )


@dataclass(frozen=True, slots=True)
class DeliveryFilter:
    """Which finished deliveries are meant; None means any. ``since`` and ``until`` speak of when they came in."""

    status: str
    org_id: UUID | None = None
    provider: str | None = None
    type: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def named(self) -> dict[str, Any]:
        """What is asked for, without what is not."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def last_delivery_id(session: Session) -> int:
    """The id of the newest delivery; 0 while there is none."""
    return session.scalar(select(func.max(Delivery.id))) or 0


def list_finished(session: Session, wanted: DeliveryFilter, *, after: int, until: int, limit: int) -> list[int]:
    """The next ids of finished deliveries that fit, in the order of intake; never a canary, and none nobody owns."""
    statement = select(Delivery.id).where(
        Delivery.id > after,
        Delivery.id <= until,
        Delivery.status == wanted.status,
        Delivery.finished_at.is_not(None),
        Delivery.org_id.not_in([CANARY_ORG_ID, UNOWNED_ORG_ID]),
    )
    for column, value in (
        (Delivery.org_id, wanted.org_id),
        (Delivery.provider, wanted.provider),
        (Delivery.type, wanted.type),
    ):
        if value is not None:
            statement = statement.where(column == value)
    if wanted.since is not None:
        statement = statement.where(Delivery.received_at >= wanted.since)
    if wanted.until is not None:
        statement = statement.where(Delivery.received_at < wanted.until)
    return list(session.scalars(statement.order_by(Delivery.id).limit(limit)))


@dataclass(frozen=True, slots=True)
class Trouble:
    """Deliveries of one provider and type that share a fate: how many, of how many organizations, the first ids."""

    provider: str
    type: str
    error_code: str
    count: int
    organizations: int
    ids: list[int]


def list_dead(session: Session, *, within: timedelta, except_codes: Sequence[str]) -> list[Trouble]:
    """What died within the time and was not replayed, by provider, type and error code; by an index of the dead."""
    return _troubles(
        session,
        "SELECT provider, type, coalesce(error_code, '') AS error_code, count(*) AS count,"
        " count(DISTINCT org_id) AS organizations, (array_agg(id ORDER BY id))[1:5] AS ids"
        " FROM webhook_delivery_log WHERE status = 'dead' AND finished_at > now() - CAST(:within AS interval)"
        " AND coalesce(error_code, '') <> ALL (:except_codes) GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
        within=within,
        except_codes=list(except_codes),
    )


def list_set_aside(session: Session) -> list[Trouble]:
    """What is unfinished and was set aside, by provider and type; found over the lanes, which are few."""
    return _troubles(
        session,
        "SELECT d.provider, d.type, '' AS error_code, count(*) AS count, count(DISTINCT d.org_id) AS organizations,"
        " (array_agg(d.id ORDER BY d.id))[1:5] AS ids FROM lanes l JOIN webhook_delivery_log d"
        f" ON d.org_id = l.org_id AND d.lane_key = l.lane_key AND d.{UNFINISHED}"
        " WHERE position(':aside:' IN l.lane_key) > 0 GROUP BY 1, 2 ORDER BY 1, 2",
    )


def list_refused_credentials(session: Session, *, within: timedelta) -> list[tuple[UUID, str, str, int]]:
    """Whose credentials are refused: organization, provider, type, how many.

    Those with something that waits for new credentials, and those refused within the time and not accepted since.
    """
    rows = session.execute(
        text(
            "SELECT org_id, provider, type, count(*) FROM webhook_delivery_log"
            f" WHERE waiting_on LIKE 'credentials:%' AND {UNFINISHED} GROUP BY 1, 2, 3"
            " UNION ALL SELECT r.org_id, r.provider, r.type, r.times FROM ("
            " SELECT a.org_id, d.provider, d.type, count(DISTINCT d.id) AS times, max(a.ended_at) AS last"
            " FROM delivery_attempts a JOIN webhook_delivery_log d ON d.org_id = a.org_id AND d.id = a.delivery_id"
            " WHERE a.error_code = 'credentials_refused' AND a.ended_at > now() - CAST(:within AS interval)"
            " AND d.waiting_on IS NULL GROUP BY 1, 2, 3) r WHERE NOT EXISTS (SELECT FROM webhook_delivery_log s"
            " WHERE s.finished_at > r.last AND s.status = 'processed' AND s.org_id = r.org_id AND s.type = r.type)"
        ),
        {"within": within},
    )
    return [(org_id, provider, work, count) for org_id, provider, work, count in rows]


def _troubles(session: Session, statement: str, **parameters: object) -> list[Trouble]:
    return [Trouble(**row._mapping) for row in session.execute(text(statement), parameters)]


def count_unfinished(session: Session) -> dict[str, int]:
    """How many deliveries wait, by each unfinished status, also those that none has."""
    counted = session.execute(
        text(f"SELECT status, count(*) FROM webhook_delivery_log WHERE {UNFINISHED} GROUP BY status")
    )
    return {"received": 0, "processing": 0, "retrying": 0} | {row[0]: row[1] for row in counted}
