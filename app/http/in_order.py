"""What a webhook in order is: known, signed, understood, and nobody waits for an answer; and what it hears.

Owns the short way's part that both its doors share: ``quick_door.py``, which a WSGI server calls, and
``loop_door.py``, which has no thread of its own to wait in. It looks at a webhook in the order of ``webhooks.py``,
with the same functions, asks nobody and stores nothing. Whatever is not in order is the framework's, which looks at
everything from the beginning and says what is wrong.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from app.config import Settings
from app.http.headers import always
from app.http.requests import HEADER
from app.http.webhooks import FORM, JSON, TWIML
from app.integrations import twilio
from app.integrations.doors import DOORS
from app.integrations.events import InboundEvent, WebhookRequest
from app.services import routing, verification
from app.services.directory import Endpoint
from app.services.platform import Platform


@dataclass(frozen=True, slots=True)
class Answer:
    """What a provider hears when its event is stored. No ``content_types``: its body does not matter."""

    content_types: tuple[str, ...]
    status: str
    headers: list[tuple[str, str]]
    body: bytes


@dataclass(frozen=True, slots=True)
class Address:
    """Where a webhook came to. ``rule`` is the framework's name for it, without the token."""

    provider: str
    token: str
    rule: str
    answer: Answer


def _answer(content_types: tuple[str, ...], content_type: str, body: bytes) -> Answer:
    return Answer(content_types, "200 OK", [("Content-Type", content_type), ("Content-Length", str(len(body)))], body)


ANSWERS = {
    "vapi": _answer((JSON,), JSON, b"{}"),
    "twilio": _answer((FORM,), TWIML, twilio.TWIML_EMPTY.encode()),
    "google-calendar": Answer((), "204 NO CONTENT", [("Content-Type", "text/html; charset=utf-8")], b""),
    **{door.provider: _answer(door.content_types, JSON, b"{}") for door in DOORS.values()},
}
_PATH = re.compile(r"/webhooks/([a-z0-9-]{1,40})/([A-Za-z0-9_-]{1,64})(/status)?")


class InOrder:
    """Looks at webhooks for one application."""

    def __init__(self, platform: Platform, settings: Settings) -> None:
        self._platform = platform
        self._base_url = settings.public_base_url
        self._most_bytes = settings.max_webhook_bytes
        self._headers = list(always(settings).items())

    def address(self, path: str, content_type: str, length: str) -> Address | None:
        """Whose webhook it is by its path and head; None for what the framework is to look at."""
        found = _PATH.fullmatch(path)
        answer = ANSWERS.get(found[1]) if found else None
        if (
            found is None
            or answer is None
            or (found[3] is not None and found[1] != "twilio")
            or not (length.isascii() and length.isdigit() and int(length) <= self._most_bytes)
            or (answer.content_types and _media_type(content_type) not in answer.content_types)
        ):
            return None
        return Address(found[1], found[2], f"/webhooks/{found[1]}/<token>{found[3] or ''}", answer)

    def endpoint(self, address: Address) -> Endpoint | None:
        """The integration behind it, if this process has just looked it up and enforces its proof."""
        endpoint = self._platform.directory.known_endpoint(address.provider, address.token)
        if endpoint is None or endpoint.is_platform or endpoint.verification != "enforce":
            return None
        return endpoint

    def event(self, endpoint: Endpoint, target: str, headers: dict[str, str], body: bytes) -> InboundEvent | None:
        """What it tells of; None when somebody waits for what is said to it. Raises whatever is wrong with it."""
        webhook = WebhookRequest("POST", self._base_url + target, headers, body)
        event = verification.receive(self._platform, endpoint, webhook)
        if event.awaits_answer is not None:
            return None
        return routing.route(self._platform, endpoint, event)[1]

    def headers(self, answer: Answer, request_id: str) -> list[tuple[str, str]]:
        """All headers of the application's answer."""
        return [*answer.headers, (HEADER, request_id), *self._headers]


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()
