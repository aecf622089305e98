"""Whether the road from outside to this house is as PUBLIC_BASE_URL says: for a laptop behind a tunnel.

Owns the trial: a request without proof to a webhook of ours, as a provider would send it. It is refused, and the
refusal names the URL that the web process took it for. Nothing of it is stored.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from uuid import UUID

from app.errors import InvalidInput, NotFound, TemporaryFailure
from app.models.integrations import list_integrations
from app.services.simulate import Outgoing, send

if TYPE_CHECKING:
    from app.services.platform import Platform

QUERY = "?road=a%20b%2Bc"  # what decodes and encodes anew on the way changes this
_HEADERS = {
    "vapi": {"Content-Type": "application/json"},
    "twilio": {"Content-Type": "application/x-www-form-urlencoded"},
}
# Of tunnels that show a page to browsers first.
_NO_PAGE = {"User-Agent": "Voicedesk", "ngrok-skip-browser-warning": "1", "Bypass-Tunnel-Reminder": "1"}


def check_road(platform: Platform, integration_id: UUID) -> str:
    """The address under which the integration's webhook is reached from outside, unchanged, by this very house.

    Raises InvalidInput with what is wrong and what to do, NotFound.
    """
    settings = platform.settings
    if settings.environment == "production":
        raise InvalidInput("--dev is for a developer's machine, and ENVIRONMENT says production")
    base = settings.public_base_url
    with platform.database.transaction(system=True) as session:
        row = next((one for one in list_integrations(session) if one.id == integration_id), None)
        if row is None or row.disabled_at is not None:
            raise NotFound("no integration has this id, or it is disabled")
        provider, path, mode = row.provider, f"/webhooks/{row.provider}/{row.token}", row.verification
    if mode != "enforce":
        raise InvalidInput(f"its verification is {mode}, so a trial would be taken for an event; enforce it first")
    expected = _ask(base, path, provider)
    if expected != f"{base}{path}{QUERY}":
        theirs = expected.partition("/webhooks/")[0]
        if theirs != base:
            raise InvalidInput(
                f"the web process has PUBLIC_BASE_URL={theirs}, this command {base}: start both with one"
            )
        raise InvalidInput(
            "something on the way changes path or query, and they are signed: use a tunnel that does not"
        )
    return f"{base}{path}"


def _ask(base: str, path: str, provider: str) -> str:
    """The URL that the web process says it took the trial for."""
    headers = {**_NO_PAGE, **_HEADERS.get(provider, {})}
    try:
        told = send(Outgoing(f"{base}{path}{QUERY}", headers, b""))
    except TemporaryFailure:
        raise InvalidInput(f"nothing answers at {base}: is the tunnel open, and PUBLIC_BASE_URL its address?") from None
    try:
        said = json.loads(told["body"])
        if said["code"] != "signature_missing":
            raise InvalidInput(f"what answers at {base} does not know this integration: is it another database's?")
        return str(said["expected_url"])
    except (ValueError, KeyError, TypeError):
        status = told["status"]
        raise InvalidInput(f"what answers at {base} is not this house (HTTP {status}): see the tunnel") from None
