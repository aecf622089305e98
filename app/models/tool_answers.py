"""What was answered to a tool call, so that the same question gets the same answer.

The row is claimed before the work starts; a second identical question waits for it.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import Index, func, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from app.models.base import Base, CreatedAt, OrgId


class ToolAnswer(Base):
    """One tool call of one call. ``result`` is the single line that was spoken from.

    ``calendar_source``: where the free times in it came from, if any: ``google`` or ``mirror``. ``unfinished``: the
    caller was not helped with it.
    """

    __tablename__ = "tool_answers"
    __table_args__ = (Index("ix_tool_answers_started", "started_at"),)

    org_id: Mapped[OrgId] = mapped_column(primary_key=True)
    call_id: Mapped[str] = mapped_column(primary_key=True)
    tool_call_id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    result: Mapped[str | None]
    started_at: Mapped[CreatedAt]
    answered_at: Mapped[datetime | None]
    calendar_source: Mapped[str | None]
    unfinished: Mapped[bool] = mapped_column(server_default=text("false"))


def claim_answer(
    session: Session, org_id: UUID, *, call_id: str, tool_call_id: str, name: str, stale_after: timedelta
) -> bool:
    """Whether the caller is to do the work: the first to ask, or the first after one that died at it."""
    row = insert(ToolAnswer).values(org_id=org_id, call_id=call_id, tool_call_id=tool_call_id, name=name)
    claimed = session.execute(
        row.on_conflict_do_update(
            index_elements=[ToolAnswer.org_id, ToolAnswer.call_id, ToolAnswer.tool_call_id],
            set_={"started_at": func.now()},
            where=(ToolAnswer.result.is_(None)) & (ToolAnswer.started_at < func.now() - stale_after),
        ).returning(ToolAnswer.tool_call_id)
    ).first()
    return claimed is not None


def find_answer(session: Session, org_id: UUID, *, call_id: str, tool_call_id: str) -> str | None:
    """The recorded result, or None while nobody has one."""
    return session.scalar(
        select(ToolAnswer.result).where(
            ToolAnswer.org_id == org_id, ToolAnswer.call_id == call_id, ToolAnswer.tool_call_id == tool_call_id
        )
    )


def record_answer(
    session: Session,
    org_id: UUID,
    *,
    call_id: str,
    tool_call_id: str,
    result: str,
    calendar_source: str | None = None,
    unfinished: bool = False,
) -> None:
    """Keep the first result given; a later one does not replace what the caller was told."""
    session.execute(
        update(ToolAnswer)
        .where(
            ToolAnswer.org_id == org_id,
            ToolAnswer.call_id == call_id,
            ToolAnswer.tool_call_id == tool_call_id,
            or_(ToolAnswer.result.is_(None), ToolAnswer.result == ""),
        )
        .values(result=result, calendar_source=calendar_source, unfinished=unfinished, answered_at=func.now())
    )


def ended_unfinished(session: Session, org_id: UUID, call_id: str, *, except_for: str) -> bool:
    """Whether the last thing that the call asked for, other than by that tool, came to nothing or to no answer."""
    last = session.execute(
        select(ToolAnswer.result, ToolAnswer.unfinished)
        .where(ToolAnswer.org_id == org_id, ToolAnswer.call_id == call_id, ToolAnswer.name != except_for)
        .order_by(ToolAnswer.started_at.desc())
        .limit(1)
    ).first()
    return last is not None and (last.unfinished or not last.result)
