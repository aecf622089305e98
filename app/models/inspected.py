"""What a check may ask of the database itself: indexes, policies, what each role sees; and rows for a trial.

Reads the catalog and the house's own tables. What it plants is the caller's to take back, in the same transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKeyConstraint, text
from sqlalchemy.orm import Session

from app.models.base import Base
from app.models.deliveries import LISTED

_FINISHED_AND_NOT = """
INSERT INTO webhook_delivery_log
    (org_id, integration_id, provider, type, event_key, lane_key, status, finished_at)
VALUES (:org, :integration, 'voicedesk', 'readiness', 'finished', 'readiness', 'processed', :finished),
       (:org, :integration, 'voicedesk', 'readiness', 'unfinished', 'readiness', 'received', NULL)
"""


def plant_expired(session: Session, *, org_id: UUID, integration_id: UUID, finished_at: datetime) -> None:
    """Two deliveries of an organization that does not exist, with their keys: one finished then, one unfinished."""
    values = {"org": org_id, "integration": integration_id, "finished": finished_at}
    session.execute(text(_FINISHED_AND_NOT), values)
    session.execute(
        text(
            "INSERT INTO processed_webhook_events (integration_id, event_key, org_id)"
            " VALUES (:integration, 'finished', :org), (:integration, 'unfinished', :org)"
        ),
        {"org": org_id, "integration": integration_id},
    )


def count_deliveries(session: Session, org_id: UUID) -> int:
    """How many deliveries of the organization this transaction sees."""
    statement = text(f"SELECT count(*) FROM webhook_delivery_log WHERE org_id = :org AND {LISTED}")
    return int(session.execute(statement, {"org": org_id}).scalar_one())


def count_as(session: Session, role: str, org_id: UUID | None) -> int:
    """How many of the deliveries planted for trials ``role`` sees in the name of an organization, or of none."""
    session.connection().exec_driver_sql(f"SET LOCAL ROLE {role}")
    session.execute(text("SELECT set_config('voicedesk.org_id', :org, true)"), {"org": str(org_id or "")})
    statement = text(
        "SELECT count(*) FROM webhook_delivery_log WHERE provider = 'voicedesk' AND type = 'readiness'"
        " AND xmin = pg_current_xact_id()::xid"
    )
    return int(session.execute(statement).scalar_one())


def missing_parts(session: Session, tables: Sequence[str]) -> list[str]:
    """Tables, indexes and constraints of the models that the database lacks or has marked invalid, and policies."""
    valid = set(
        session.execute(
            text(
                "SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
                " JOIN pg_class t ON t.oid = i.indrelid"
                " WHERE t.relname = ANY (:tables) AND i.indisvalid AND i.indisready"
            ),
            {"tables": list(tables)},
        ).scalars()
    )
    missing = []
    for name in tables:
        table = Base.metadata.tables[name]
        wanted = [str(index.name) for index in table.indexes]
        wanted += [
            str(constraint.name)
            for constraint in table.constraints
            if not isinstance(constraint, CheckConstraint | ForeignKeyConstraint)
        ]
        missing += [part for part in sorted(wanted) if part not in valid]
    without = set(tables_without_policies(session))
    return missing + [f"policies of {name}" for name in tables if name in without]


def tables_without_policies(session: Session) -> list[str]:
    """Tables with rows of organizations on which row-level security is not forced for everybody, or without policy."""
    owned = [name for name, table in Base.metadata.tables.items() if "org_id" in table.columns] + ["organizations"]
    forced = set(
        session.execute(
            text(
                "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
                " WHERE n.nspname = 'public' AND c.relname = ANY (:tables)"
                " AND c.relrowsecurity AND c.relforcerowsecurity"
                " AND EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid)"
            ),
            {"tables": owned},
        ).scalars()
    )
    return sorted(set(owned) - forced)
