"""Texts in and out, and who wants none.

Owns ``messages`` and ``opt_outs``. A text out is a row before it is a request to Twilio; its status
only moves forward, whoever brings the news.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    ForeignKeyConstraint,
    Index,
    Select,
    SmallInteger,
    UniqueConstraint,
    func,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from app.models.aliases import alias_by, sealed_key
from app.models.base import Base, CreatedAt, Id, OrgId


class MessageStatus(StrEnum):
    """Where a text stands. ``sending`` is committed before Twilio is asked; ``unknown`` waits for a person."""

    RECEIVED = "received"
    PLANNED = "planned"
    SENDING = "sending"
    UNKNOWN = "unknown"
    SENT = "sent"
    DELIVERED = "delivered"
    READ = "read"
    UNDELIVERED = "undelivered"
    FAILED = "failed"
    CANCELED = "canceled"
    REFUSED = "refused"


RANK = {
    MessageStatus.PLANNED: 0,
    MessageStatus.SENDING: 1,
    MessageStatus.UNKNOWN: 1,
    MessageStatus.SENT: 2,
    MessageStatus.DELIVERED: 3,
    MessageStatus.READ: 4,
    MessageStatus.UNDELIVERED: 5,
    MessageStatus.FAILED: 5,
    MessageStatus.CANCELED: 5,
    MessageStatus.REFUSED: 5,
}
FINAL_RANK = 5


class Message(Base):
    """One text. ``remote_address`` is the customer: E.164, or a WhatsApp user id without a number."""

    __tablename__ = "messages"
    __table_args__ = (
        CheckConstraint("direction IN ('inbound', 'outbound')", name="direction"),
        CheckConstraint("channel IN ('sms', 'whatsapp')", name="channel"),
        UniqueConstraint("org_id", "id"),
        UniqueConstraint("org_id", "provider_sid"),
        UniqueConstraint("org_id", "idempotency_key"),
        ForeignKeyConstraint(["org_id", "appointment_id"], ["appointments.org_id", "appointments.id"]),
        Index("ix_messages_org_created", "org_id", "created_at"),
        Index("ix_messages_remote", "remote_address", "created_at"),
        Index("ix_messages_sid", "provider_sid"),  # a status callback that names no row of ours
        Index("ix_messages_words", "org_id", "created_at", postgresql_where=text("words_removed_at IS NULL")),
        Index("ix_messages_unsettled", "sending_since", postgresql_where=text("status IN ('sending', 'unknown')")),
    )

    id: Mapped[Id]
    org_id: Mapped[OrgId]
    direction: Mapped[str]
    channel: Mapped[str]
    remote_address: Mapped[str]
    own_address: Mapped[str | None]
    body: Mapped[str]
    media: Mapped[list[Any]] = mapped_column(server_default="[]")
    status: Mapped[str]
    provider_status: Mapped[str | None]
    provider_sid: Mapped[str | None]
    idempotency_key: Mapped[str | None]
    purpose: Mapped[str | None]
    appointment_id: Mapped[UUID | None]
    call_id: Mapped[str | None]
    # of which wording it is, and with what values: what WhatsApp outside its window is given instead of the body
    template: Mapped[str | None]
    template_values: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    # the approved template it was sent by; then its body at Twilio is not ours
    content_sid: Mapped[str | None]
    profile_name: Mapped[str | None]
    error_code: Mapped[str | None]
    error: Mapped[str | None]
    sends: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    lookups: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    sending_since: Mapped[datetime | None]
    looked_up_at: Mapped[datetime | None]
    words_removed_at: Mapped[datetime | None]
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[CreatedAt]

    def move(self, status: str) -> bool:
        """Go to ``status`` if that is forward (or a fate after ``sent``); False, and no change, if it is not.

        What was delivered or read cannot fail any more.
        """
        old, new = RANK[MessageStatus(self.status)], RANK[MessageStatus(status)]
        arrived = old >= RANK[MessageStatus.DELIVERED]
        if new <= old or (arrived and new == FINAL_RANK):
            return False
        self.status = status
        return True


class OptOut(Base):
    """Whether this address wants texts from this organization; the last word of STOP or START."""

    __tablename__ = "opt_outs"

    org_id: Mapped[OrgId] = mapped_column(primary_key=True)
    address: Mapped[str] = mapped_column(primary_key=True)
    opted_out: Mapped[bool]
    source: Mapped[str]
    changed_at: Mapped[CreatedAt]


def has_opted_out(session: Session, org_id: UUID, address: str) -> bool:
    """Whether the address has said STOP to this organization and not START since, also before it was erased."""
    asked = select(_said(org_id, address).scalar_subquery(), sealed_key().scalar_subquery())  # in one round trip
    said, sealed = session.execute(asked).one()
    if said is None and sealed is not None:
        said = session.scalar(_said(org_id, alias_by(session, sealed, address)))
    return bool(said)


def _said(org_id: UUID, address: str) -> Select[bool]:
    return select(OptOut.opted_out).where(OptOut.org_id == org_id, OptOut.address == address)


def record_opt_out(session: Session, org_id: UUID, address: str, *, source: str) -> None:
    """The address wants no texts (learnt otherwise than by its own STOP, which intake records)."""
    row = insert(OptOut).values(org_id=org_id, address=address, opted_out=True, source=source)
    session.execute(
        row.on_conflict_do_update(
            index_elements=[OptOut.org_id, OptOut.address],
            set_={"opted_out": True, "source": source, "changed_at": func.now()},
        )
    )


def record_consent(session: Session, org_id: UUID, address: str, *, opted_out: bool, said_at: datetime) -> None:
    """STOP or START, said earlier than now; not if the address has said something since."""
    said_at_or_now = func.least(said_at, func.now())
    row = insert(OptOut).values(
        org_id=org_id, address=address, opted_out=opted_out, source="message", changed_at=said_at_or_now
    )
    session.execute(
        row.on_conflict_do_update(
            index_elements=[OptOut.org_id, OptOut.address],
            set_={"opted_out": opted_out, "source": "message", "changed_at": row.excluded.changed_at},
            where=OptOut.changed_at <= row.excluded.changed_at,
        )
    )


def insert_message(session: Session, **values: Any) -> UUID | None:
    """Add a text; None when its idempotency key or provider SID is there already (then nothing is done)."""
    return session.scalar(insert(Message).values(**values).on_conflict_do_nothing().returning(Message.id))


def lock_message(session: Session, org_id: UUID, message_id: UUID) -> Message | None:
    """The text, locked until the transaction ends."""
    return session.scalar(select(Message).where(Message.org_id == org_id, Message.id == message_id).with_for_update())


def lock_message_by_sid(session: Session, org_id: UUID, provider_sid: str) -> Message | None:
    """The text with Twilio's SID, locked until the transaction ends."""
    return session.scalar(
        select(Message).where(Message.org_id == org_id, Message.provider_sid == provider_sid).with_for_update()
    )


def find_owners(session: Session, *, message_id: UUID | None, provider_sid: str) -> list[UUID]:
    """The organizations whose text this is: by our id of it, or else by Twilio's."""
    if message_id is not None:
        found = list(session.scalars(select(Message.org_id).where(Message.id == message_id)))
        if found:
            return found
    return list(session.scalars(select(Message.org_id).where(Message.provider_sid == provider_sid).limit(2)))


def find_by_idempotency_key(session: Session, org_id: UUID, idempotency_key: str) -> Message | None:
    """The text that was planned for this key."""
    return session.scalar(select(Message).where(Message.org_id == org_id, Message.idempotency_key == idempotency_key))


def owned_sids(session: Session, sids: list[str]) -> set[str]:
    """Those of ``sids`` that belong to a text that this transaction may see."""
    found = session.scalars(select(Message.provider_sid).where(Message.provider_sid.in_(sids)))
    return {sid for sid in found if sid}


def known_texts(session: Session, sids: list[str]) -> dict[str, tuple[UUID, str, str | None]]:
    """Texts of ours with these SIDs: whose each is, its direction, and what Twilio last said of it."""
    found = session.execute(
        select(Message.provider_sid, Message.org_id, Message.direction, Message.provider_status).where(
            Message.provider_sid.in_(sids)
        )
    )
    return {row[0]: (row[1], row[2], row[3]) for row in found if row[0] is not None}


def consent_changed_at(session: Session, org_id: UUID, address: str) -> datetime | None:
    """When the address last said whether it wants texts."""
    return session.scalar(select(OptOut.changed_at).where(OptOut.org_id == org_id, OptOut.address == address))


def last_inbound_channel(session: Session, org_id: UUID, address: str, *, within: timedelta) -> str | None:
    """By which channel the address last wrote to us, if it did within the time."""
    return session.scalar(
        select(Message.channel)
        .where(
            Message.org_id == org_id,
            Message.direction == "inbound",
            Message.remote_address == address,
            Message.created_at > func.now() - within,
        )
        .order_by(Message.created_at.desc())
        .limit(1)
    )


def has_written(session: Session, org_id: UUID, address: str, *, channel: str, within: timedelta) -> bool:
    """Whether the address has written to us by the channel within the time."""
    found = session.scalar(
        select(Message.id)
        .where(
            Message.org_id == org_id,
            Message.direction == "inbound",
            Message.remote_address == address,
            Message.channel == channel,
            Message.created_at > func.now() - within,
        )
        .limit(1)
    )
    return found is not None


def is_stored(session: Session, org_id: UUID, provider_sid: str) -> bool:
    """Whether a text with Twilio's SID is there."""
    found = select(Message.id).where(Message.org_id == org_id, Message.provider_sid == provider_sid)
    return session.scalar(found) is not None


def list_messages(session: Session, *, org_id: UUID | None = None, limit: int = 100) -> list[Message]:
    """The newest first, at most ``limit``."""
    statement = select(Message).order_by(Message.created_at.desc()).limit(limit)
    return list(session.scalars(statement.where(Message.org_id == org_id) if org_id else statement))


def waited_for(session: Session, org_id: UUID, message_id: UUID) -> tuple[timedelta, timedelta]:
    """For how long the text has been sending, and since when it was last looked for, by the database's clock.

    What lies ahead of that clock was written before it was set back, and counts from now on.
    """
    found = session.execute(
        text(
            "UPDATE messages SET sending_since = least(sending_since, now()), looked_up_at = least(looked_up_at, now())"
            " WHERE org_id = :org AND id = :id RETURNING now() - coalesce(sending_since, created_at),"
            " now() - coalesce(looked_up_at, sending_since, created_at)"
        ),
        {"org": org_id, "id": message_id},
    ).one()
    return found[0], found[1]


def count_unknown(session: Session, *, older_than: timedelta) -> list[tuple[UUID, int, list[UUID]]]:
    """Per organization: how many texts have had an unknown fate for so long, and the first five of them."""
    rows = session.execute(
        text(
            "SELECT org_id, count(*), (array_agg(id ORDER BY sending_since))[1:5] FROM messages"
            " WHERE status = 'unknown' AND sending_since < now() - CAST(:age AS interval) GROUP BY org_id"
        ),
        {"age": older_than},
    )
    return [(org_id, count, list(ids)) for org_id, count, ids in rows]
