"""The database: reached, migrated, indexed, isolated; the same event stored once, and old rows cleaned up.

Whatever is written here is written in one transaction and taken back at its end.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from app.models import expired, inspected
from app.models.expired import FINISHED_WELL, Cursor
from app.models.inbox import NewDelivery, insert_webhooks
from app.services.readiness.outcomes import Outcome, failed, passed

if TYPE_CHECKING:
    from app.services.platform import Platform

ROOT = Path(__file__).resolve().parents[3]
TIMEOUT_MS = 5000
OLDEST_SERVER = 150000
UPGRADE = "Run `flask --app wsgi db upgrade`."
IDEMPOTENCY_TABLES = (
    "processed_webhook_events",
    "webhook_delivery_log",
    "webhook_payloads",
    "lanes",
    "messages",
    "appointments",
    "tool_answers",
)


class _TakenBack(Exception):
    """Ends a trial's transaction so that nothing of it stays."""


@contextmanager
def _trial() -> Iterator[None]:
    try:
        yield
    except _TakenBack:
        return


def connection(platform: Platform) -> Outcome:
    """It answers, how fast, and is new enough."""
    with platform.database.transaction(system=True, statement_timeout_ms=TIMEOUT_MS) as session:
        began = time.monotonic()
        version, shown = session.execute(
            text("SELECT current_setting('server_version_num')::int, current_setting('server_version')")
        ).one()
        milliseconds = (time.monotonic() - began) * 1000
    if version < OLDEST_SERVER:
        return failed(f"PostgreSQL {shown} is too old", "Upgrade the server to PostgreSQL 15 or newer.")
    return passed(f"PostgreSQL {shown.split()[0]}, answers in {milliseconds:.1f} ms")


def cleanup(platform: Platform) -> Outcome:
    """The cleanup's own statements remove an expired event with its key, and leave an unfinished one alone."""
    org_id, integration_id = uuid4(), uuid4()
    # Long before any real event, and apart from another readiness's rows at the same time.
    long_ago = datetime(1990, 1, 1, tzinfo=UTC) + timedelta(seconds=org_id.int % 200_000_000)
    before = Cursor(long_ago - timedelta(microseconds=1))
    counts: tuple[int, int, int] | None = None
    with _trial(), platform.database.transaction(system=True, statement_timeout_ms=TIMEOUT_MS) as session:
        inspected.plant_expired(session, org_id=org_id, integration_id=integration_id, finished_at=long_ago)
        age = timedelta(days=365).total_seconds()
        keys = expired.delete_keys(session, before, age_seconds=age, most=1)
        gone = expired.delete_deliveries(session, before, statuses=FINISHED_WELL, age_seconds=age, most=1)
        counts = (keys.deleted, gone.deleted, inspected.count_deliveries(session, org_id))
        raise _TakenBack
    if counts != (1, 1, 1):
        return failed("a trial of the cleanup removed too little or too much", f"{UPGRADE} Then look at the log.")
    settings = platform.settings
    return passed(
        f"a trial removed what was expired and nothing else; kept: keys {settings.keep_keys_hours:g} h,"
        f" events {settings.keep_deliveries_days:g} days, dead {settings.keep_dead_days:g}"
    )


def idempotency(platform: Platform) -> Outcome:
    """Tables, indexes and policies are there, and the same event twice is stored once."""
    with platform.database.transaction(system=True, statement_timeout_ms=TIMEOUT_MS) as session:
        missing = inspected.missing_parts(session, IDEMPOTENCY_TABLES)
    if missing:
        return failed(
            f"missing or invalid: {', '.join(missing[:4])}", f"{UPGRADE} It was made there once: recreate it."
        )
    event = NewDelivery(
        org_id=uuid4(),
        integration_id=uuid4(),
        provider="voicedesk",
        type="readiness",
        event_key="readiness",
        lane_key="readiness",
        payload={},
    )
    stored: tuple[int, ...] = ()
    with _trial(), platform.database.intake() as session:
        stored = (len(insert_webhooks(session, [event])), len(insert_webhooks(session, [event])))
        raise _TakenBack
    if stored != (1, 0):
        return failed("the same event twice was not stored once", UPGRADE)
    return passed(
        f"{len(IDEMPOTENCY_TABLES)} tables with their indexes and policies; the same event twice is stored once"
    )


def row_level_security(platform: Platform) -> Outcome:
    """A row of one organization is seen by it, by no other, and by nobody when no organization is set."""
    database = platform.database
    database.verify_role()
    ours, theirs = uuid4(), uuid4()
    with database.transaction(system=True, statement_timeout_ms=TIMEOUT_MS) as session:
        open_tables = inspected.tables_without_policies(session)
    if open_tables:
        return failed(f"no forced policies on: {', '.join(open_tables[:4])}", UPGRADE)
    seen: tuple[int, int, int] | None = None
    with _trial(), database.transaction(system=True, statement_timeout_ms=TIMEOUT_MS) as session:
        inspected.plant_expired(session, org_id=ours, integration_id=uuid4(), finished_at=datetime.now(UTC))
        as_ours = inspected.count_as(session, database.roles.tenant, ours)
        as_theirs = inspected.count_as(session, database.roles.tenant, theirs)
        as_nobody = inspected.count_as(session, database.roles.tenant, None)
        seen = (as_ours, as_theirs, as_nobody)
        raise _TakenBack
    if seen != (2, 0, 0):
        return failed("a trial row was seen by somebody else, or not by its own organization", UPGRADE)
    if _login_role_reads(platform):
        return failed("the login role reads rows without a role", "Revoke its rights on tables; see `db-roles`.")
    return passed("a trial row is seen by its organization alone; the login role sees none")


def _login_role_reads(platform: Platform) -> bool:
    """Whether the login role by itself may read a tenant's table."""

    def ask(session: Session) -> None:
        session.execute(text("RESET ROLE"))
        session.execute(text("SELECT FROM webhook_delivery_log LIMIT 1"))

    try:
        with platform.database.transaction(system=True, statement_timeout_ms=TIMEOUT_MS) as session:
            ask(session)
    except DBAPIError as error:
        if getattr(error.orig, "pgcode", None) == "42501":
            return False
        raise
    return True


def migration_head(platform: Platform) -> Outcome:
    """The database has the migrations that this code was written for."""
    wanted = ScriptDirectory(str(ROOT / "migrations")).get_current_head()
    with platform.database.transaction(system=True, statement_timeout_ms=TIMEOUT_MS) as session:
        found = session.execute(text("SELECT version_num FROM alembic_version")).scalars().all()
    if list(found) != [wanted]:
        return failed(f"the database is at {', '.join(found) or 'nothing'}, the code at {wanted}", UPGRADE)
    return passed(f"at {wanted}")
