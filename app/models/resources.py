"""Who or what is booked: the staff and rooms of an organization, and which services each does.

Owns the tables and their queries. Their calendars belong to the organization's own Google account.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    SmallInteger,
    UniqueConstraint,
    delete,
    func,
    select,
    text,
)
from sqlalchemy.orm import Mapped, Session, mapped_column

from app.models.base import Base, CreatedAt, Id, OrgId


class Resource(Base):
    """A person or a room. ``seats``: how many may be with them at once."""

    __tablename__ = "resources"
    __table_args__ = (
        CheckConstraint("kind IN ('staff', 'room')", name="kind"),
        CheckConstraint("seats > 0", name="seats"),
        UniqueConstraint("org_id", "id"),
        Index("uq_resources_name", "org_id", func.lower(text("name")), unique=True),
    )

    id: Mapped[Id]
    org_id: Mapped[OrgId] = mapped_column(ForeignKey("organizations.id", ondelete="CASCADE"))
    name: Mapped[str]
    kind: Mapped[str] = mapped_column(server_default="staff")
    # Google's id of their own calendar; None: the organization's
    calendar_id: Mapped[str | None]
    # None: the organization's
    opening_hours: Mapped[dict[str, Any] | None]
    seats: Mapped[int] = mapped_column(SmallInteger, server_default="1")
    active: Mapped[bool] = mapped_column(server_default=text("true"))
    created_at: Mapped[CreatedAt]


class ResourceService(Base):
    """One does this service. Who has none of these does all."""

    __tablename__ = "resource_services"
    __table_args__ = (
        ForeignKeyConstraint(["org_id", "resource_id"], ["resources.org_id", "resources.id"], ondelete="CASCADE"),
        ForeignKeyConstraint(["org_id", "service_id"], ["services.org_id", "services.id"], ondelete="CASCADE"),
    )

    org_id: Mapped[OrgId] = mapped_column(primary_key=True)
    resource_id: Mapped[UUID] = mapped_column(primary_key=True)
    service_id: Mapped[UUID] = mapped_column(primary_key=True)


def find_resource(session: Session, resource_id: UUID) -> Resource | None:
    """The person or room, or None when there is none or this transaction may not see it."""
    return session.get(Resource, resource_id)


def list_resources(session: Session, org_id: UUID | None = None) -> list[Resource]:
    """All that this transaction may see, of one organization when it is given, by name; inactive ones too."""
    statement = select(Resource).order_by(Resource.org_id, func.lower(Resource.name))
    return list(session.scalars(statement.where(Resource.org_id == org_id) if org_id else statement))


def services_by_resource(session: Session, org_id: UUID | None = None) -> dict[UUID, set[UUID]]:
    """The services of each who does not do them all."""
    statement = select(ResourceService)
    found: dict[UUID, set[UUID]] = {}
    for row in session.scalars(statement.where(ResourceService.org_id == org_id) if org_id else statement):
        found.setdefault(row.resource_id, set()).add(row.service_id)
    return found


def set_services(session: Session, resource: Resource, service_ids: Collection[UUID]) -> None:
    """They do these services and no others; none: all of them."""
    session.execute(
        delete(ResourceService).where(
            ResourceService.org_id == resource.org_id, ResourceService.resource_id == resource.id
        )
    )
    for service_id in sorted(service_ids):
        session.add(ResourceService(org_id=resource.org_id, resource_id=resource.id, service_id=service_id))
