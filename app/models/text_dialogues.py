"""What a customer was offered by text and may answer with a number: one row an address, bounded in time.

Owns the table and its queries. What is offered, and what an answer does, is ``services/text_dialogue.py``'s.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKeyConstraint, Index, delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from app.models.base import Base, CreatedAt, OrgId


class TextDialogue(Base):
    """An open question. ``options`` are ids of appointments while it is open which one, then the times offered."""

    __tablename__ = "text_dialogues"
    __table_args__ = (
        CheckConstraint("intent IN ('cancel', 'move')", name="intent"),
        ForeignKeyConstraint(
            ["org_id", "appointment_id"], ["appointments.org_id", "appointments.id"], ondelete="CASCADE"
        ),
        Index("ix_text_dialogues_appointment_id", "org_id", "appointment_id"),
        Index("ix_text_dialogues_expires", "expires_at"),
    )

    org_id: Mapped[OrgId] = mapped_column(primary_key=True)
    address: Mapped[str] = mapped_column(primary_key=True)
    intent: Mapped[str]
    # None: which one is meant is the question
    appointment_id: Mapped[UUID | None]
    options: Mapped[list[Any]]
    expires_at: Mapped[datetime]
    created_at: Mapped[CreatedAt]


def find_dialogue(session: Session, org_id: UUID, address: str) -> TextDialogue | None:
    """The question that is open with the address, or that was until it ended."""
    return session.scalar(select(TextDialogue).where(TextDialogue.org_id == org_id, TextDialogue.address == address))


def keep_dialogue(
    session: Session,
    org_id: UUID,
    address: str,
    *,
    intent: str,
    appointment_id: UUID | None,
    options: list[str],
    lasts: timedelta,
) -> None:
    """Ask this; an older question of the same address is asked no more."""
    facts = {
        "intent": intent,
        "appointment_id": appointment_id,
        "options": options,
        "expires_at": func.now() + lasts,
        "created_at": func.now(),
    }
    row = insert(TextDialogue).values(org_id=org_id, address=address, **facts)
    session.execute(row.on_conflict_do_update(index_elements=["org_id", "address"], set_=facts))


def end_dialogue(session: Session, org_id: UUID, address: str) -> None:
    """Nothing is asked any more."""
    session.execute(delete(TextDialogue).where(TextDialogue.org_id == org_id, TextDialogue.address == address))


def delete_ended(session: Session, *, older_than: timedelta) -> int:
    """Delete questions that ended so long ago; how many."""
    gone = session.execute(
        delete(TextDialogue)
        .where(TextDialogue.expires_at < func.now() - older_than)
        .returning(TextDialogue.address)
        .execution_options(synchronize_session=False)
    )
    return len(gone.all())
