"""Deduplication keys: which events have been seen, per integration, never globally.

A key goes 24 hours after its delivery is finished, never before. Written only by the inbox's one
statement (``inbox.py``); effects are protected by natural keys beyond that.
"""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import Computed
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, CreatedAt, OrgId


class ProcessedWebhookEvent(Base):
    """One key of one integration. Unique per integration, or one tenant's guess would drop another's event."""

    __tablename__ = "processed_webhook_events"

    # Of both that follow: its index is the one that grows with all events and is read twice by each.
    digest: Mapped[UUID] = mapped_column(
        Computed("event_digest(integration_id, event_key)", persisted=True), primary_key=True
    )
    integration_id: Mapped[UUID]
    event_key: Mapped[str]
    org_id: Mapped[OrgId]
    received_at: Mapped[CreatedAt]
