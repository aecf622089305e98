"""Alerts: what is wrong now, since when, and whether anybody has been told.

Owns ``alerts``. A row per cause that has ever been wrong, so that all processes of all machines tell of it once.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, CreatedAt


class Alert(Base):
    """One cause, such as ``circuit_open:twilio_sms``. ``ended_at`` is set while it is not wrong.

    ``told_at`` and ``end_told_at``: when a person was told of its beginning and of its end; None is still to be done.
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
