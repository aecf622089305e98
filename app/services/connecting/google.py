"""A person's consent to their Google calendar: a link that is good once and for half an hour, and what it brings.

Owns the state that travels through the person's browser: encrypted with CREDENTIALS_KEYS, so that nothing is
kept while it is on its way, nobody can make one, and the verifier of PKCE in it is nobody's to read. What is
kept is that it was used, until it could not be used any more.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson
from pydantic import SecretStr

from app.errors import InvalidInput, NotFound, VoicedeskError
from app.integrations.google_calendar import Consents, GoogleCalendarCredentials, OAuthClient
from app.models.integrations import find_for_provider
from app.models.operations import forget_expired_dates, hold_singleton, release_singleton
from app.observability.logging import get_logger
from app.services import connections, organizations
from app.services.readable import plain

if TYPE_CHECKING:
    from app.services.platform import Platform

PROVIDER = "google-calendar"
CALLBACK_PATH = "/connect/google/callback"
PAGE_PATH = "/connect/google"
GOOD_FOR = timedelta(minutes=30)
PAGE_GOOD_FOR = timedelta(days=7)  # an alert is read the next morning, its link passed on by mail
ACTOR = "google-consent"
_USED = "consent:"

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Pending:
    """A consent that was asked for."""

    id: str
    org_id: UUID
    client_id: str
    verifier: str
    calendar_id: str | None


def link(platform: Platform, org_id: UUID, *, calendar_id: str | None = None) -> dict[str, Any]:
    """A page at Google where the calendar's owner consents: ``link``, ``redirect_uri`` and ``expires_at``.

    ``calendar_id`` is the calendar to use afterwards; without it the one that was used, or the person's own.
    Raises NotFound, InvalidInput when no OAuth client is set.
    """
    with platform.database.transaction(system=True) as session:
        organizations.get(session, org_id)
        forget_expired_dates(session, prefix=_USED)
    client = _client(platform, org_id)
    pending = _Pending(secrets.token_urlsafe(12), org_id, client.client_id, secrets.token_urlsafe(48), calendar_id)
    token, expires_at = platform.vault.pack(orjson.dumps([*_fields(pending)]), good_for=GOOD_FOR)
    redirect_uri = _redirect_uri(platform)
    page = _consents(platform).link(client.client_id, redirect_uri=redirect_uri, state=token, verifier=pending.verifier)
    return {"org_id": str(org_id), "link": page, "redirect_uri": redirect_uri, "expires_at": plain(expires_at)}


def page(platform: Platform, org_id: UUID) -> str | None:
    """A page of ours that leads to such a link, made when it is opened; None when there is nothing to ask with.

    It is good for a week, and as secret as the link: for whoever may connect that calendar, and for no log.
    """
    try:
        _client(platform, org_id)
    except (InvalidInput, NotFound):
        return None
    ticket, _ = platform.vault.pack(orjson.dumps([str(org_id)]), good_for=PAGE_GOOD_FOR)
    return f"{platform.settings.public_base_url}{PAGE_PATH}?ticket={ticket}"


def open_page(platform: Platform, ticket: str) -> str:
    """The link at Google that a page leads to. Raises InvalidInput (not ours, too old) and what `link` raises."""
    fields = _unpack(platform, ticket, good_for=PAGE_GOOD_FOR)
    if len(fields) != 1:
        raise _not_ours()
    return str(link(platform, UUID(fields[0]))["link"])


def finish(platform: Platform, *, state: str, code: str) -> UUID:
    """Trade the code for a refresh token and keep it; returns the organization's id.

    What waited for the calendar is woken. A link works once: when the exchange fails it may be opened
    again, when it succeeded it may not. Raises InvalidInput (the state is not ours, too old or used up),
    and what Google's refusals and silences mean.
    """
    pending = _open(platform, state)
    holder = secrets.token_hex(8)
    with platform.database.transaction(system=True) as session:
        if not hold_singleton(session, _USED + pending.id, holder=holder, lease=GOOD_FOR):
            raise InvalidInput("this link was used already", code="consent_used", advice="Ask for a new one.")
    try:
        client = _client(platform, pending.org_id)
        if client.client_id != pending.client_id:
            raise InvalidInput("the OAuth client was changed meanwhile", code="consent_stale")
        token = _consents(platform).exchange(
            client, code=code, redirect_uri=_redirect_uri(platform), verifier=pending.verifier
        )
        _keep(platform, pending, client, token)
    except VoicedeskError:
        with platform.database.transaction(system=True) as session:
            release_singleton(session, _USED + pending.id, holder=holder)
        raise
    log.info("calendar.connected", org_id=str(pending.org_id))
    return pending.org_id


def check_state(platform: Platform, state: str) -> None:
    """Raise InvalidInput unless the state is ours and young enough."""
    _open(platform, state)


def _keep(platform: Platform, pending: _Pending, client: OAuthClient, token: SecretStr) -> None:
    given = {
        "refresh_token": token.get_secret_value(),
        "client_id": client.client_id,
        "client_secret": client.client_secret.get_secret_value(),
    }
    if pending.calendar_id:
        given["calendar_id"] = pending.calendar_id
    with platform.database.transaction(system=True) as session:
        found = find_for_provider(session, pending.org_id, PROVIDER)
        integration_id = found[0].id if found else None
    if integration_id is None:
        connections.add(platform, pending.org_id, PROVIDER, given, actor=ACTOR)
        return
    # A person's consent takes the place of a service account.
    connections.change(platform, integration_id, {**given, "service_account_json": "", "subject": ""}, actor=ACTOR)


def _client(platform: Platform, org_id: UUID) -> OAuthClient:
    """The organization's own OAuth client, or else the house's."""
    try:
        own = platform.directory.integration(org_id, PROVIDER).credentials
    except NotFound:
        own = None
    if isinstance(own, GoogleCalendarCredentials) and own.client_id and own.client_secret:
        return OAuthClient(own.client_id, own.client_secret)
    settings = platform.settings
    if not settings.google_client_id or not settings.google_client_secret:
        raise InvalidInput(
            "there is no OAuth client to ask with: set GOOGLE_CLIENT_ID and GOOGLE_CLIENT_SECRET",
            code="no_oauth_client",
        )
    return OAuthClient(settings.google_client_id, SecretStr(settings.google_client_secret))


def _open(platform: Platform, state: str) -> _Pending:
    fields = _unpack(platform, state, good_for=GOOD_FOR)
    if len(fields) != 5:  # a page's ticket is no state
        raise _not_ours()
    consent_id, org_id, client_id, verifier, calendar_id = fields
    return _Pending(consent_id, UUID(org_id), client_id, verifier, calendar_id)


def _unpack(platform: Platform, packed: str, *, good_for: timedelta) -> list[str]:
    content = platform.vault.unpack(packed, good_for=good_for)
    if content is None:
        raise _not_ours()
    fields: list[str] = orjson.loads(content)
    return fields


def _not_ours() -> InvalidInput:
    return InvalidInput("this link is not ours, or too old", code="consent_expired", advice="Ask for a new one.")


def _fields(pending: _Pending) -> tuple[str | None, ...]:
    return pending.id, str(pending.org_id), pending.client_id, pending.verifier, pending.calendar_id


def _consents(platform: Platform) -> Consents:
    return Consents(platform.settings.google_calendar_api_base_url)


def _redirect_uri(platform: Platform) -> str:
    return f"{platform.settings.public_base_url}{CALLBACK_PATH}"
