"""Organizations and their API keys, as an operator sets them up.

Owns what an organization may be set to. A key is shown once, when it is made; only its hash and its
first characters are kept. Connections to providers are ``connections.py``'s.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import time
from typing import TYPE_CHECKING, Any
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from sqlalchemy.orm import Session

from app.errors import InvalidInput, NotFound
from app.models import Organization
from app.models.integrations import list_integrations
from app.models.organizations import find_organization, list_keys, list_organizations
from app.models.routing import claim, keys_of
from app.services import api_keys, audit, retention, routing
from app.services.catalogue import LANGUAGES
from app.services.notices import About
from app.services.readable import fields
from app.services.routing import KINDS
from app.services.slots import DEFAULT_HOURS, check_hours
from app.services.tools import normalise_phone

if TYPE_CHECKING:
    from app.services.platform import Platform

SLOT_MINUTES = range(5, 481)
NOTICE_MINUTES, AHEAD_DAYS, SEATS = range(43_201), range(1_001), range(1, 501)
QUOTAS = range(1, 10_000_001)

_LISTED = ("id", "name", "timezone", "number=phone_number", "created_at")
_SHOWN = (
    *_LISTED,
    "transfer=transfer_number",
    "assistant=assistant_id",
    "slot=slot_minutes",
    "notice=notice_minutes",
    "ahead=ahead_days",
    "seats",
    "hours=opening_hours",
    "retention=keep_words_days",
    "consent=consent_sentence",
    "api_quota=api_quota_per_hour",
    "webhook_quota=webhook_quota_per_hour",
    "language",
    "reminders",
    "quiet_hours",
    "notify=notify_number",
    "notify_about",
    "sms_instead",
    "ref",
    "suspended_at",
)
_COLUMNS = frozenset(column.key for column in Organization.__table__.columns)
# By the name that a checked value has: of a column where there is one.
_KEY_OF = {
    {"number": "phone_number", "assistant": "assistant_id"}.get(name, name): kind for name, kind in KINDS.items()
}


def create(platform: Platform, *, name: str, timezone: str, actor: str) -> dict[str, Any]:
    """Make an organization and its first API key: ``id``, ``name`` and ``api_key``, which is shown only here.

    It is open on weekdays from 9 to 17 until told otherwise. Raises InvalidInput.
    """
    with platform.database.transaction(system=True) as session:
        org = Organization(name=_name(name), timezone=_timezone(timezone), opening_hours=DEFAULT_HOURS)
        session.add(org)
        session.flush()
        key, _ = api_keys.add(session, org.id, scopes=list(api_keys.SCOPES))
        audit.note(session, org.id, actor=actor, action="organization.create", subject=str(org.id))
        return {"id": str(org.id), "name": org.name, "api_key": key}


def change(platform: Platform, org_id: UUID, changes: dict[str, Any], *, actor: str) -> dict[str, Any]:
    """Set what ``changes`` names and return the organization; other processes follow within five seconds.

    Names are ``name``, ``timezone``, ``number``, ``transfer``, ``assistant``, ``hours`` (an object) and
    ``slot`` (minutes), ``api_quota`` and ``webhook_quota`` (an hour; 0: what the settings say for everybody);
    ``retention`` (days that words are kept; 0: not stored) and ``consent`` (what a call begins with); an empty
    number, transfer, assistant or consent takes it away. So it is with ``vapi_phone_number``, ``twilio_account``,
    ``messaging_service`` and ``whatsapp_sender``, by which events of a platform integration are told apart; events
    that waited for their owner are delivered. Raises InvalidInput (also when another organization has a key), NotFound.
    """
    checked = check(changes)
    with platform.database.transaction(system=True) as session:
        org = get(session, org_id)
        put(session, org, checked)
        audit.note(session, org_id, actor=actor, action="organization.set", subject=str(org_id), fields=sorted(checked))
        session.flush()
        shown = _shown(session, org)
    if KINDS.keys() & changes.keys():
        shown["events_delivered"] = routing.deliver_to(platform, org_id, actor=actor)
    platform.directory.forget()
    platform.api_keys.forget()
    return shown


def show(platform: Platform, org_id: UUID) -> dict[str, Any]:
    """All about one organization except secrets. Raises NotFound."""
    with platform.database.transaction(system=True) as session:
        return _shown(session, get(session, org_id))


def list_all(platform: Platform) -> list[dict[str, Any]]:
    """All organizations, the oldest first."""
    with platform.database.transaction(system=True) as session:
        return [fields(org, _LISTED) for org in list_organizations(session)]


def get(session: Session, org_id: UUID) -> Organization:
    """The organization, in the caller's transaction; raises NotFound."""
    org = find_organization(session, org_id)
    if org is None:
        raise NotFound("no organization has this id")
    return org


def put(session: Session, org: Organization, checked: dict[str, Any]) -> list[str]:
    """Set checked values in the caller's transaction; the names of those that were different.

    Raises InvalidInput for a key that another organization has.
    """
    claimed = keys_of(session, org.id)
    changed = []
    for attribute, value in checked.items():
        kind = _KEY_OF.get(attribute)
        if attribute in _COLUMNS:
            if getattr(org, attribute) != value:
                setattr(org, attribute, value)
                changed.append(attribute)
        elif claimed.get(kind or "") != value:
            changed.append(attribute)
        if kind is not None:
            other = claim(session, org.id, kind, value)
            if other is not None:
                name = next(name for name, found in KINDS.items() if found == kind)
                raise InvalidInput(
                    f"{name}: organization {other} has it already; take it away there first", code="taken"
                )
    return changed


def _shown(session: Session, org: Organization) -> dict[str, Any]:
    keys = list_keys(session, org_id=org.id)
    return {
        **fields(org, _SHOWN),
        "routing": keys_of(session, org.id),
        "api_keys": [fields(key, ("prefix", "created_at", "expires_at", "revoked_at")) for key in keys],
        "integrations": [
            fields(row, ("id", "provider", "created_at", "disabled_at")) for row in list_integrations(session, org.id)
        ],
    }


def check(changes: dict[str, Any]) -> dict[str, Any]:
    """Checked values by the name of their column, or of their routing key. Raises InvalidInput."""
    if not changes:
        raise InvalidInput("nothing to set was given")
    checks: dict[str, tuple[str, Callable[[Any], Any]]] = {
        "name": ("name", _name),
        "timezone": ("timezone", _timezone),
        "number": ("phone_number", lambda said: _number("number", said)),
        "transfer": ("transfer_number", lambda said: _number("transfer", said)),
        "assistant": ("assistant_id", lambda said: said.strip() or None),
        "hours": ("opening_hours", check_hours),
        "slot": ("slot_minutes", _slot),
        "notice": ("notice_minutes", lambda given: _within("notice", given, NOTICE_MINUTES)),
        "ahead": ("ahead_days", lambda given: _within("ahead", given, AHEAD_DAYS) or None),
        "retention": ("keep_words_days", lambda given: _within("retention", given, retention.DAYS)),
        "consent": ("consent_sentence", _consent),
        "seats": ("seats", lambda given: _within("seats", given, SEATS)),
        "vapi_phone_number": ("vapi_phone_number", lambda said: said.strip() or None),
        "twilio_account": ("twilio_account", lambda said: _sid("twilio_account", "AC", said)),
        "messaging_service": ("messaging_service", lambda said: _sid("messaging_service", "MG", said)),
        "whatsapp_sender": ("whatsapp_sender", lambda said: _number("whatsapp_sender", said)),
        "api_quota": ("api_quota_per_hour", lambda said: _quota("api_quota", said)),
        "webhook_quota": ("webhook_quota_per_hour", lambda said: _quota("webhook_quota", said)),
        "language": ("language", _language),
        "reminders": ("reminders", bool),
        "quiet": ("quiet_hours", _quiet),
        "notify": ("notify_number", lambda said: _number("notify", said)),
        "notify_about": ("notify_about", _about),
        "sms_instead": ("sms_instead", bool),
    }
    checked = {}
    for given, value in changes.items():
        attribute, check = checks[given]
        checked[attribute] = check(value)
    return checked


def _name(said: str) -> str:
    if not said.strip():
        raise InvalidInput("name: must not be empty")
    return said.strip()


def _timezone(said: str) -> str:
    try:
        ZoneInfo(said)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidInput("timezone: an IANA name is needed, such as Europe/Berlin") from None
    return said


def _number(what: str, said: str) -> str | None:
    if not said.strip():
        return None
    try:
        return normalise_phone(said, near=None)
    except InvalidInput:
        raise InvalidInput(f"{what}: E.164 is needed: a plus sign, the country and the number") from None


def _language(said: str) -> str:
    if said not in LANGUAGES:
        raise InvalidInput(f"language: one of {', '.join(LANGUAGES)}")
    return said


def _quiet(said: str) -> list[str]:
    """``21:00-08:00`` as two local times; empty: it is never quiet."""
    if not said.strip():
        return []
    try:
        begins, ends = (time.fromisoformat(edge.strip()) for edge in said.split("-"))
    except ValueError:
        raise InvalidInput("quiet: two local times are needed, such as 21:00-08:00") from None
    if begins == ends:
        raise InvalidInput("quiet: it must end at another time than it begins")
    return [f"{begins:%H:%M}", f"{ends:%H:%M}"]


def _about(said: str) -> list[str]:
    names = [name.strip() for name in said.split(",") if name.strip()]
    if not set(names) <= {*About}:
        raise InvalidInput(f"notify_about: of {', '.join(About)}, separated by commas")
    return [str(about) for about in About if about in names]


def _sid(what: str, prefix: str, said: str) -> str | None:
    said = said.strip()
    if said and not re.fullmatch(rf"{prefix}[0-9a-f]{{32}}", said):
        raise InvalidInput(f"{what}: {prefix} and 32 hexadecimal digits are needed")
    return said or None


def _slot(minutes: int) -> int:
    if minutes not in SLOT_MINUTES:
        raise InvalidInput(f"slot: {SLOT_MINUTES.start} to {SLOT_MINUTES.stop - 1} minutes")
    return minutes


def _within(what: str, given: int, allowed: range) -> int:
    if given not in allowed:
        raise InvalidInput(f"{what}: {allowed.start} to {allowed.stop - 1}")
    return given


def _consent(said: str) -> str | None:
    sentence = " ".join(said.split())
    if len(sentence) > retention.LONGEST_CONSENT:
        raise InvalidInput(f"consent: at most {retention.LONGEST_CONSENT} characters")
    return sentence or None


def _quota(what: str, an_hour: int) -> int | None:
    if an_hour and an_hour not in QUOTAS:
        raise InvalidInput(f"{what}: {QUOTAS.start} to {QUOTAS.stop - 1} an hour, or 0 for what the settings say")
    return an_hour or None
