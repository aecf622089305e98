"""Calls: one row per call of Vapi's, put together from events that come in any order."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, cast
from uuid import UUID

from sqlalchemy import Index, Numeric, Table, UniqueConstraint, case, func, select, text, tuple_
from sqlalchemy.dialects.postgresql import Insert, insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from app.models.base import Base, CreatedAt, Id, OrgId

# What was said in a call, or tells of it: it goes when the organization's retention is over.
WORDS_OF_CALL = ("transcript", "summary", "recording_url", "structured_data")
# A call only moves forward; a late "ringing" after "ended" changes nothing.
STATUS_ORDER = ("scheduled", "queued", "ringing", "in-progress", "forwarding", "ended")


class Call(Base):
    """A phone call or web call; the natural key is Vapi's call id within the organization."""

    __tablename__ = "calls"
    __table_args__ = (
        UniqueConstraint("org_id", "vapi_call_id"),
        UniqueConstraint("org_id", "id"),
        Index("ix_calls_org_created", "org_id", "created_at"),
        Index("ix_calls_customer", "customer_number", "created_at"),
        Index("ix_calls_words", "org_id", "created_at", postgresql_where=text("words_removed_at IS NULL")),
    )

    id: Mapped[Id]
    org_id: Mapped[OrgId]
    vapi_call_id: Mapped[str]
    provider_call_id: Mapped[str | None]
    type: Mapped[str | None]
    status: Mapped[str]
    assistant_id: Mapped[str | None]
    customer_number: Mapped[str | None]
    dialled_number: Mapped[str | None]
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    ended_reason: Mapped[str | None]
    duration_seconds: Mapped[Decimal | None] = mapped_column(Numeric(12, 3))
    cost: Mapped[Decimal | None] = mapped_column(Numeric(12, 6))
    summary: Mapped[str | None]
    transcript: Mapped[str | None]
    recording_url: Mapped[str | None]
    structured_data: Mapped[dict[str, Any] | None]
    success_evaluation: Mapped[str | None]
    reported_at: Mapped[datetime | None]
    # the sentence of consent that the call was to begin with, and when that was asked for
    consent_sentence: Mapped[str | None]
    consent_at: Mapped[datetime | None]
    words_removed_at: Mapped[datetime | None]
    erased_at: Mapped[datetime | None]  # on request; nothing that comes late fills it again
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[CreatedAt]


def merge_call(session: Session, org_id: UUID, vapi_call_id: str, *, status: str | None, facts: dict[str, Any]) -> None:
    """Add to the call's row what ``facts`` knows (None adds nothing) and move its status forward only.

    Safe to call twice and in any order: what is known is never replaced by nothing. Words that come late go again
    with the next cleanup.
    """
    known = {name: value for name, value in facts.items() if value is not None}
    whose = {"org_id": org_id, "vapi_call_id": vapi_call_id, "status": status or "queued"}
    session.execute(_merge(frozenset(known)), {**whose, **known})


@lru_cache(maxsize=256)
def _merge(names: frozenset[str]) -> Insert:
    """The statement for these facts. Built once: that costs several times what the server needs to carry it out."""
    again = {"words_removed_at": None} if names & set(WORDS_OF_CALL) else {}
    row = insert(cast(Table, Call.__table__))
    rank = {name: number for number, name in enumerate(STATUS_ORDER)}
    ahead = case(rank, value=row.excluded.status, else_=-1) > case(rank, value=Call.status, else_=-1)
    return row.on_conflict_do_update(
        index_elements=[Call.org_id, Call.vapi_call_id],
        set_={
            **{name: row.excluded[name] for name in sorted(names)},
            **again,
            "status": case((ahead, row.excluded.status), else_=Call.status),
            "updated_at": func.now(),
        },
        where=Call.erased_at.is_(None),
    )


def find_call(session: Session, org_id: UUID, vapi_call_id: str) -> Call | None:
    """The call with Vapi's id."""
    return session.scalar(select(Call).where(Call.org_id == org_id, Call.vapi_call_id == vapi_call_id))


def complete_calls(session: Session, calls: list[tuple[UUID, str]]) -> set[tuple[UUID, str]]:
    """Those of the calls (organization, Vapi's id) whose report has come, or that were erased."""
    complete = Call.reported_at.is_not(None) | Call.erased_at.is_not(None)
    found = session.execute(
        select(Call.org_id, Call.vapi_call_id).where(tuple_(Call.org_id, Call.vapi_call_id).in_(calls), complete)
    )
    return {(row[0], row[1]) for row in found}


def list_calls(session: Session, *, org_id: UUID | None = None, limit: int = 100) -> list[Call]:
    """The newest first, at most ``limit``."""
    statement = select(Call).order_by(Call.created_at.desc()).limit(limit)
    return list(session.scalars(statement.where(Call.org_id == org_id) if org_id else statement))
