"""An organization that pauses or leaves: suspended, resumed, exported, deleted.

Owns the order of a deletion: nothing new comes in, what runs comes to its end, then its rows go in small pieces,
and what had not ended stands in the books as erased.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson
from sqlalchemy import func, select

from app.errors import InvalidInput
from app.models import belongings
from app.models.attempts import resumption_of, wake_waiting
from app.models.deliveries import UNOWNED_ORG_ID
from app.models.integrations import list_integrations
from app.models.routing import release_all
from app.services import audit, organizations
from app.services.directory import FRESH_SECONDS
from app.services.readable import plain

if TYPE_CHECKING:
    from app.services.platform import Platform

PIECE = 1_000
EXPORT_TIMEOUT_MS = 600_000
LOOK_AGAIN_SECONDS = 0.2


def suspend(platform: Platform, org_id: UUID, *, actor: str) -> dict[str, Any]:
    """Keep what comes in and send nothing out, until resumed; callers hear a sentence. Other processes follow
    within five seconds. Safe to repeat. Raises NotFound."""
    with platform.database.transaction(system=True) as session:
        org = organizations.get(session, org_id)
        if org.suspended_at is None:
            org.suspended_at = session.scalar(select(func.now()))
            audit.note(session, org_id, actor=actor, action="organization.suspend", subject=str(org_id))
        shown = {"id": str(org_id), "name": org.name, "suspended_at": plain(org.suspended_at)}
    platform.directory.forget()
    return shown


def resume(platform: Platform, org_id: UUID, *, actor: str) -> dict[str, Any]:
    """Go on, beginning with what waited; ``woken`` says how many lanes' first events. Raises NotFound."""
    with platform.database.transaction(system=True) as session:
        org = organizations.get(session, org_id)
        if org.suspended_at is not None:
            org.suspended_at = None
            audit.note(session, org_id, actor=actor, action="organization.resume", subject=str(org_id))
        # Not before every process knows.
        woken = wake_waiting(session, resumption_of(org_id), after_seconds=FRESH_SECONDS)
    platform.directory.forget()
    return {"id": str(org_id), "name": org.name, "suspended_at": None, "woken": woken}


def export(platform: Platform, org_id: UUID, path: Path, *, actor: str) -> dict[str, Any]:
    """Write every row of the organization as a line ``{"table", "row"}`` into a new file that only its owner reads.

    Returns ``path`` and the number of rows by table. No secret is among them. Raises NotFound, and InvalidInput
    when the file is there already.
    """
    counts: dict[str, int] = {}
    with platform.database.transaction(system=True) as session:
        organizations.get(session, org_id)
        audit.note(session, org_id, actor=actor, action="organization.export", subject=str(org_id))
    try:
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise InvalidInput("the file is there already; name a new one") from None
    except OSError:
        raise InvalidInput("the file cannot be written there") from None
    # As that tenant, so that no wrong filter shows another's rows.
    with (
        os.fdopen(opened, "wb") as file,
        platform.database.transaction(org_id, statement_timeout_ms=EXPORT_TIMEOUT_MS) as session,
    ):
        for table, row in belongings.read_all(session, org_id):
            file.write(orjson.dumps({"table": table, "row": plain(row)}, default=str) + b"\n")
            counts[table] = counts.get(table, 0) + 1
    return {"id": str(org_id), "path": str(path), "rows": counts}


def delete(
    platform: Platform, org_id: UUID, *, actor: str, settle_seconds: float = FRESH_SECONDS + 1
) -> dict[str, Any]:
    """Delete all of an organization but the sums in the books; ``erased`` events had not come to their end.

    Waits ``settle_seconds`` until no process takes anything more for it, and at most a lease longer for what runs.
    Safe to repeat after an interruption. Raises NotFound.
    """
    suspend(platform, org_id, actor=actor)
    with platform.database.transaction(system=True) as session:
        release_all(session, org_id)
        for row in list_integrations(session, org_id):
            row.disabled_at = row.disabled_at or session.scalar(select(func.now()))
    platform.directory.forget()
    time.sleep(settle_seconds)
    _await_end(platform, org_id)
    erased, rows = 0, 0
    # Twice: what was in the middle of its transaction at first is there the second time.
    for _ in range(2):
        with platform.database.transaction(system=True) as session:
            erased += belongings.erase_unfinished(session, org_id)
        for table in reversed(belongings.tables()):
            rows += _delete_rows(platform, table, org_id)
    with platform.database.transaction(system=True) as session:
        name = organizations.get(session, org_id).name
        belongings.delete_organization(session, org_id)
        details = {"rows": rows, "erased": erased}
        audit.note(session, UNOWNED_ORG_ID, actor=actor, action="organization.delete", subject=str(org_id), **details)
    platform.directory.forget()
    platform.api_keys.forget()
    return {"id": str(org_id), "name": name, **details}


def _await_end(platform: Platform, org_id: UUID) -> None:
    until = time.monotonic() + platform.settings.lease_seconds
    while time.monotonic() < until:
        with platform.database.transaction(system=True) as session:
            if not belongings.is_working(session, org_id):
                return
        time.sleep(LOOK_AGAIN_SECONDS)


def _delete_rows(platform: Platform, table: Any, org_id: UUID) -> int:
    total = 0
    while True:
        with platform.database.transaction(system=True) as session:
            gone = belongings.delete_piece(session, table, org_id, most=PIECE)
        total += gone
        if gone < PIECE:
            return total
