"""The operators' trail: who did what to which organization, written in the transaction that did it.

Owns the one way into ``operator_actions``. Details are ids and names of fields, never values.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from app.models import OperatorAction


def note(session: Session, org_id: UUID, *, actor: str, action: str, subject: str, **details: Any) -> None:
    """Add a line to the trail; it exists if and only if the caller's transaction commits."""
    session.add(OperatorAction(org_id=org_id, actor=actor, action=action, subject=subject, details=details))
