"""What is kept of an erased address: a keyed hash, by which a STOP is still honoured and nothing else can be told.

Owns ``house_keys``. The key is random, made when the first person is erased, and sealed with CREDENTIALS_KEYS: a
copy of the database alone does not tell which numbers were tried. Sessions bring what opens it (``Database``).
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import cast

from cryptography.fernet import MultiFernet
from sqlalchemy import LargeBinary, Select, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from app.models.base import Base, CreatedAt

ALIASES = "aliases"
PREFIX = "erased:"


class HouseKey(Base):
    """A secret of the house's own, sealed."""

    __tablename__ = "house_keys"

    name: Mapped[str] = mapped_column(primary_key=True)
    sealed: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[CreatedAt]


def alias_of(session: Session, address: str) -> str | None:
    """The address's alias; None while nobody was ever erased, and so nobody has one."""
    sealed = session.scalar(sealed_key())
    return alias_by(session, sealed, address) if sealed is not None else None


def sealed_key() -> Select[bytes]:
    """Asks for the key, as ``alias_by`` takes it; for a statement that asks for more."""
    return select(HouseKey.sealed).where(HouseKey.name == ALIASES)


def alias_by(session: Session, sealed: bytes, address: str) -> str:
    """The address's alias, by the sealed key."""
    return alias_from(_opener(session).decrypt(sealed), address)


def alias_from(key: bytes, address: str) -> str:
    """The address's alias, by the key itself."""
    return PREFIX + hmac.new(key, address.encode(), hashlib.sha256).hexdigest()


def make_key(session: Session) -> None:
    """See that there is a key; as the system role."""
    sealed = _opener(session).encrypt(secrets.token_bytes(32))
    session.execute(insert(HouseKey).values(name=ALIASES, sealed=sealed).on_conflict_do_nothing())


def reseal_keys(session: Session) -> None:
    """The same keys, sealed with the newest of CREDENTIALS_KEYS. Raises InvalidToken when none opens one."""
    for row in session.execute(select(HouseKey.name, HouseKey.sealed).with_for_update()).all():
        fresh = _opener(session).rotate(row.sealed)
        session.execute(update(HouseKey).where(HouseKey.name == row.name).values(sealed=fresh))


def _opener(session: Session) -> MultiFernet:
    return cast(MultiFernet, session.info["opener"])
