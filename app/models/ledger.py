"""The ledger: what was accepted on one side, what became of it on the other, counted independently.

Owns ``ledger_entries``, which are only ever added to: intake writes how many it accepted, endings write
what they ended as, and cleanup deletes deliveries without touching it. So ``accepted = processed + dead +
skipped + erased + waiting`` (the rows that are unfinished now) can fail, and says so when it does.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Identity, Index, Integer
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, CreatedAt, OrgId


class LedgerEntry(Base):
    """A change of the sums of one organization and provider; negative where a replay takes an ending back."""

    __tablename__ = "ledger_entries"
    __table_args__ = (Index("ix_ledger_entries_at", "at"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    org_id: Mapped[OrgId]
    provider: Mapped[str]
    accepted: Mapped[int] = mapped_column(Integer, server_default="0")
    processed: Mapped[int] = mapped_column(Integer, server_default="0")
    dead: Mapped[int] = mapped_column(Integer, server_default="0")
    skipped: Mapped[int] = mapped_column(Integer, server_default="0")
    erased: Mapped[int] = mapped_column(Integer, server_default="0")
    at: Mapped[CreatedAt]
