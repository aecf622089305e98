"""The declarative base and the column types every table shares. Owns no table."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID, uuid4

from sqlalchemy import DateTime, Identity, MetaData, Text, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, mapped_column

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    """Every table's base; text is TEXT, times are aware, JSON is jsonb."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {str: Text, datetime: DateTime(timezone=True), dict[str, Any]: JSONB, list[Any]: JSONB}


Id = Annotated[UUID, mapped_column(primary_key=True, default=uuid4)]
Serial = Annotated[int, mapped_column(Identity(always=True))]
OrgId = Annotated[UUID, mapped_column(nullable=False)]
CreatedAt = Annotated[datetime, mapped_column(server_default=func.now(), nullable=False)]
