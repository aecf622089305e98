"""Organizations that send more than their quota: their events are kept, and are last in turn.

Owns ``quota_overruns``. Nothing is refused because of a row here.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Integer, func, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from app.models.base import Base, OrgId


class QuotaOverrun(Base):
    """One organization whose webhooks of the last hour (``accepted``) exceed its quota, until ``until``."""

    __tablename__ = "quota_overruns"

    org_id: Mapped[OrgId] = mapped_column(ForeignKey("organizations.id", ondelete="CASCADE"), primary_key=True)
    accepted: Mapped[int] = mapped_column(Integer)
    quota: Mapped[int] = mapped_column(Integer)
    until: Mapped[datetime]


def count_overruns(session: Session) -> int:
    """How many organizations are over their quota now."""
    statement = select(func.count()).select_from(QuotaOverrun).where(QuotaOverrun.until > func.now())
    return session.execute(statement).scalar_one()
