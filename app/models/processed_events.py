"""Deduplication keys: which events have been seen, per integration, never globally.

A key goes 24 hours after its delivery is finished, never before. Written only by the inbox's one
statement (``inbox.py``); effects are protected by natural keys beyond that.
"""

from __future__ import annotations

from uuid import UUID

from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, CreatedAt, OrgId


class ProcessedWebhookEvent(Base):
    """One key of one integration. Unique per integration, or one tenant's guess would drop another's event."""

    __tablename__ = "processed_webhook_events"

    integration_id: Mapped[UUID] = mapped_column(primary_key=True)
    event_key: Mapped[str] = mapped_column(primary_key=True)
    org_id: Mapped[OrgId]
    received_at: Mapped[CreatedAt]
