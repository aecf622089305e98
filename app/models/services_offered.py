"""What an organization offers: services with their length, what lies before and after, and their price.

Owns the table and its queries. Whether a time suits a service is ``services/booking_rules.py``'s.
"""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, SmallInteger, UniqueConstraint, func, select, text
from sqlalchemy.orm import Mapped, Session, mapped_column

from app.models.base import Base, CreatedAt, Id, OrgId


class Service(Base):
    """Something that can be booked. ``buffer_before`` and ``buffer_after`` are minutes nobody else may have."""

    __tablename__ = "services"
    __table_args__ = (
        CheckConstraint("minutes > 0 AND buffer_before >= 0 AND buffer_after >= 0", name="minutes"),
        UniqueConstraint("org_id", "id"),
        Index("uq_services_name", "org_id", func.lower(text("name")), unique=True),
    )

    id: Mapped[Id]
    org_id: Mapped[OrgId] = mapped_column(ForeignKey("organizations.id", ondelete="CASCADE"))
    name: Mapped[str]
    minutes: Mapped[int] = mapped_column(SmallInteger)
    buffer_before: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    buffer_after: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    # as it is to be said: "from 25 euros"
    price: Mapped[str | None]
    active: Mapped[bool] = mapped_column(server_default=text("true"))
    created_at: Mapped[CreatedAt]


def find_service(session: Session, service_id: UUID) -> Service | None:
    """The service, or None when there is none or this transaction may not see it."""
    return session.get(Service, service_id)


def list_services(session: Session, org_id: UUID | None = None) -> list[Service]:
    """All that this transaction may see, of one organization when it is given, by name; inactive ones too."""
    statement = select(Service).order_by(Service.org_id, func.lower(Service.name))
    return list(session.scalars(statement.where(Service.org_id == org_id) if org_id else statement))
