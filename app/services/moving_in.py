"""Organizations from a file: made, changed, or left as they are, so that it is safe to run twice.

Owns the file's form and how a row finds its organization: by ``id``, by ``ref`` (the operator's own name for
it), else by its name. An organization is taken whole or not at all; another's fault does not hold it up.
"""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.errors import InvalidInput, VoicedeskError
from app.models import Organization
from app.models.organizations import find_organization
from app.services import audit, organizations, routing
from app.services.slots import DEFAULT_HOURS

if TYPE_CHECKING:
    from app.services.platform import Platform

FIELDS = (
    *("name", "timezone", "number", "transfer", "assistant", "hours", "slot", "api_quota", "webhook_quota"),
    *("retention", "consent"),
    *("vapi_phone_number", "twilio_account", "messaging_service", "whatsapp_sender"),
    *("language", "quiet", "notify", "notify_about"),
)
_NUMBERS = {"slot", "api_quota", "webhook_quota", "retention"}
MOST_ROWS = 10_000
Row = dict[str, Any]


class _Undo(Exception):
    """Ends a transaction that was only to be tried."""


def run(platform: Platform, content: str, *, dry_run: bool, actor: str) -> list[Row]:
    """Take the file in. For each of its rows: ``row`` (from 1), ``name``, ``id``, ``result`` (``created``,
    ``changed``, ``same`` or ``failed``), ``changed`` (names of fields) and ``errors`` (``field: what is wrong``).

    A field that is missing or empty stays as it is. Raises InvalidInput for a file that cannot be read.
    """
    rows = _read(content)
    if not dry_run:
        done = [_take(platform, number, row, actor=actor) for number, row in enumerate(rows, start=1)]
        platform.directory.forget()
        for one in done:
            if one["result"] in {"created", "changed"}:
                one["events_delivered"] = routing.deliver_to(platform, UUID(one["id"]), actor=actor)
        return done
    done = []
    try:
        with platform.database.transaction(system=True) as session:  # one, so that rows that collide are told
            done = [_try(session, number, row, actor=actor) for number, row in enumerate(rows, start=1)]
            raise _Undo
    except _Undo:
        return [{**one, "id": None if one["result"] == "created" else one["id"]} for one in done]


def has_failed(done: list[Row]) -> bool:
    """Whether any row was not taken."""
    return any(row["result"] == "failed" for row in done)


def _take(platform: Platform, number: int, row: Row, *, actor: str) -> Row:
    with platform.database.transaction(system=True) as session:
        return _try(session, number, row, actor=actor)


def _try(session: Session, number: int, row: Row, *, actor: str) -> Row:
    """One row, all of it or nothing, in the caller's transaction."""
    said: Row = {"row": number, "name": row.get("name"), "id": None, "result": "failed", "changed": [], "errors": []}
    checked, said["errors"] = _check(row)
    if said["errors"]:
        return said
    try:
        with session.begin_nested():
            org, made = _find_or_make(session, row, checked)
            changed = organizations.put(session, org, checked)
            session.flush()
            result = "created" if made else "changed" if changed else "same"
            if result != "same":
                action = "organization.create" if made else "organization.set"
                audit.note(session, org.id, actor=actor, action=action, subject=str(org.id), fields=sorted(checked))
            session.flush()
    except VoicedeskError as error:
        return {**said, "errors": [str(error)]}
    shown = sorted(checked) if made else changed
    return {**said, "name": org.name, "id": str(org.id), "result": result, "changed": shown}


def _check(row: Row) -> tuple[Row, list[str]]:
    """Every fault of the row at once, each by its field."""
    faults = [f"{name}: there is no such field" for name in row if name not in {*FIELDS, "id", "ref"}]
    checked: Row = {}
    for name in FIELDS:
        value = row.get(name)
        if value in (None, ""):
            continue
        try:
            checked |= organizations.check({name: _typed(name, value)})
        except InvalidInput as error:
            text = str(error)
            faults.append(text if text.startswith(f"{name}:") else f"{name}: {text}")
        except (TypeError, ValueError, AttributeError):
            faults.append(f"{name}: is not of the right kind")
    return checked, faults


def _typed(name: str, value: Any) -> Any:
    """The value as its check wants it, from JSON or from a cell of a table."""
    if name in _NUMBERS:
        return int(value)
    if name == "hours":
        return json.loads(value) if isinstance(value, str) else value
    if not isinstance(value, str):
        raise TypeError
    return value


def _find_or_make(session: Session, row: Row, checked: Row) -> tuple[Organization, bool]:
    ref = str(row["ref"]).strip() if row.get("ref") else None
    org = _find(session, row, ref, checked)
    if org is not None:
        return org, False
    missing = [name for name in ("name", "timezone") if name not in checked]
    if missing:
        raise InvalidInput(f"{missing[0]}: is needed to make an organization")
    org = Organization(name=checked["name"], timezone=checked["timezone"], opening_hours=DEFAULT_HOURS, ref=ref)
    session.add(org)
    session.flush()
    return org, True


def _find(session: Session, row: Row, ref: str | None, checked: Row) -> Organization | None:
    if row.get("id"):
        try:
            found = find_organization(session, UUID(str(row["id"])))
        except ValueError:
            raise InvalidInput("id: is not an organization's id") from None
        if found is None:
            raise InvalidInput("id: no organization has it")
        return found
    if ref is not None:
        return session.scalar(select(Organization).where(Organization.ref == ref))
    named = list(session.scalars(select(Organization).where(Organization.name == checked.get("name")).limit(2)))
    if len(named) > 1:
        raise InvalidInput("name: several organizations have it; say which by id or ref")
    return named[0] if named else None


def _read(content: str) -> list[Row]:
    """Rows of a JSON list, of a JSON object's ``organizations``, or of a CSV file with a header."""
    content = content.removeprefix("\ufeff")
    if content.lstrip()[:1] in ("[", "{"):
        try:
            found = json.loads(content)
        except ValueError as error:
            where = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
            raise InvalidInput(f"the file is not JSON{where}") from None
        rows = found.get("organizations") if isinstance(found, dict) else found
    else:
        table = csv.DictReader(io.StringIO(content), restkey="(too many cells)")
        rows = [{name.strip(): value for name, value in row.items() if value not in (None, "")} for row in table]
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InvalidInput("the file holds no list of organizations")
    if not rows or len(rows) > MOST_ROWS:
        raise InvalidInput(f"the file must hold 1 to {MOST_ROWS} organizations")
    return rows
