"""An organization's own wordings, and the WhatsApp templates that were approved for it, as an operator sets them.

Owns what may be set. What a template must have is ``catalogue.py``'s, how it is filled ``wording.py``'s.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy.orm import Session

from app.errors import InvalidInput, NotFound
from app.models.organizations import Organization, lock_organization
from app.services import audit, organizations
from app.services.catalogue import CATALOGUE, LANGUAGES, OWN

if TYPE_CHECKING:
    from app.services.platform import Platform

_SENT = ("text.",)  # what goes to customers, who may be on WhatsApp
_CONTENT_SID = re.compile(r"HX[0-9a-fA-F]{32}")


def list_all(platform: Platform, org_id: UUID, language: str | None) -> list[dict[str, Any]]:
    """Every template in a language, the organization's own one when none is named. Raises NotFound, InvalidInput."""
    with platform.database.transaction(system=True) as session:
        org = organizations.get(session, org_id)
        spoken = _language(org, language)
        return [_shown(org, spoken, key) for key in sorted(CATALOGUE.placeholders) if key.startswith(OWN)]


def show(platform: Platform, org_id: UUID, key: str, language: str | None) -> dict[str, Any]:
    """One template: its text, what it ships as, its placeholders. Raises NotFound, InvalidInput."""
    with platform.database.transaction(system=True) as session:
        org = organizations.get(session, org_id)
        return _shown(org, _language(org, language), _key(key))


def change(
    platform: Platform,
    org_id: UUID,
    key: str,
    *,
    language: str | None,
    text: str | None,
    content_sid: str | None,
    variables: str | None,
    actor: str,
) -> dict[str, Any]:
    """Word it otherwise, or name the approved WhatsApp template that says it; what is not given stays.

    ``variables``: which placeholders stand for its variables 1, 2, ...; without them all, in their order. An empty
    ``content_sid`` takes it away. Other processes follow within five seconds. Raises InvalidInput, NotFound.
    """
    if text is None and content_sid is None and variables is None:
        raise InvalidInput("nothing to set was given")
    key = _key(key)
    with platform.database.transaction(system=True) as session:
        org = _lock(session, org_id)
        spoken = _language(org, language)
        own = dict(org.templates.get(spoken, {}).get(key, {}))
        if text is not None:
            own["text"] = CATALOGUE.check(key, text)
        if content_sid is not None:
            own["content_sid"] = _content_sid(key, content_sid)
        if variables is not None:
            own["variables"] = _variables(key, variables)
        if own.get("variables") and not own.get("content_sid"):
            own.pop("variables")
        _put(org, spoken, key, {name: value for name, value in own.items() if value})
        audit.note(session, org_id, actor=actor, action="template.set", subject=str(org_id), fields=[f"{spoken}:{key}"])
        shown = _shown(org, spoken, key)
    platform.directory.forget()
    return shown


def reset(platform: Platform, org_id: UUID, key: str, *, language: str | None, actor: str) -> dict[str, Any]:
    """Say it as it ships again, and by no approved template. Safe to repeat. Raises InvalidInput, NotFound."""
    key = _key(key)
    with platform.database.transaction(system=True) as session:
        org = _lock(session, org_id)
        spoken = _language(org, language)
        _put(org, spoken, key, {})
        audit.note(
            session, org_id, actor=actor, action="template.reset", subject=str(org_id), fields=[f"{spoken}:{key}"]
        )
        shown = _shown(org, spoken, key)
    platform.directory.forget()
    return shown


def _lock(session: Session, org_id: UUID) -> Organization:
    """The row under its lock: two who set different templates at once both do."""
    org = lock_organization(session, org_id)
    if org is None:
        raise NotFound("no organization has this id")
    return org


def _put(org: Organization, language: str, key: str, own: dict[str, Any]) -> None:
    """A new value for the column, because a change within the old one would not be seen."""
    of_language = {name: value for name, value in org.templates.get(language, {}).items() if name != key}
    if own:
        of_language[key] = own
    others = {name: value for name, value in org.templates.items() if name != language}
    org.templates = {**others, language: of_language} if of_language else others


def _shown(org: Organization, language: str, key: str) -> dict[str, Any]:
    own = org.templates.get(language, {}).get(key, {})
    placeholders = CATALOGUE.placeholders[key]
    return {
        "key": key,
        "language": language,
        "text": own.get("text") or CATALOGUE.sentences[language][key],
        "is_own": bool(own.get("text")),
        "ships_as": CATALOGUE.sentences[language][key],
        "placeholders": list(placeholders),
        "content_sid": own.get("content_sid"),
        "variables": (own.get("variables") or list(placeholders)) if own.get("content_sid") else None,
    }


def _key(said: str) -> str:
    if said not in CATALOGUE.placeholders or not said.startswith(OWN):
        raise InvalidInput("key: there is no such template; `template list` names them", code="unknown_template")
    return said


def _language(org: Organization, said: str | None) -> str:
    if said is not None and said not in LANGUAGES:
        raise InvalidInput(f"language: one of {', '.join(LANGUAGES)}")
    return said or org.language


def _content_sid(key: str, said: str) -> str | None:
    said = said.strip()
    if said and not key.startswith(_SENT):
        raise InvalidInput("content_sid: only what is texted to customers can be an approved template")
    if said and not _CONTENT_SID.fullmatch(said):
        raise InvalidInput("content_sid: HX and 32 hexadecimal digits are needed")
    return said or None


def _variables(key: str, said: str) -> list[str]:
    names = [name.strip() for name in said.split(",") if name.strip()]
    allowed = CATALOGUE.placeholders[key]
    if not set(names) <= set(allowed):
        raise InvalidInput(f"variables: of {', '.join(allowed)}, separated by commas")
    return names
