"""The short way of a webhook that is in order: known, signed, understood, and nobody waits for an answer.

Owns what is skipped: the web framework, and nothing else. It looks at a webhook in the order of ``webhooks.py``, with
the same functions; whatever is not in order (an unknown token, a refused signature, a body too large, a database that
is away) it hands to the framework with the body as it came, which then looks at everything from the beginning and
says what is wrong. Nothing is done before that which may not be done twice.
"""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from app.config import Settings
from app.http.arrived import Environ, headers_of, raw_target
from app.http.headers import always
from app.http.requests import HEADER
from app.http.webhooks import DATABASE_SECONDS, FORM, JSON, TWIML
from app.integrations import twilio
from app.integrations.doors import DOORS
from app.integrations.events import WebhookRequest
from app.observability import context, metrics
from app.services import intake, routing, verification
from app.services.platform import Platform

StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a provider hears when its event is stored. No ``content_types``: its body does not matter."""

    content_types: tuple[str, ...]
    status: str
    headers: list[tuple[str, str]]
    body: bytes


def _answer(content_types: tuple[str, ...], content_type: str, body: bytes) -> _Answer:
    return _Answer(content_types, "200 OK", [("Content-Type", content_type), ("Content-Length", str(len(body)))], body)


_ANSWERS = {
    "vapi": _answer((JSON,), JSON, b"{}"),
    "twilio": _answer((FORM,), TWIML, twilio.TWIML_EMPTY.encode()),
    "google-calendar": _Answer((), "204 NO CONTENT", [("Content-Type", "text/html; charset=utf-8")], b""),
    **{door.provider: _answer(door.content_types, JSON, b"{}") for door in DOORS.values()},
}
_PATH = re.compile(r"/webhooks/([a-z0-9-]{1,40})/([A-Za-z0-9_-]{1,64})(/status)?")


class QuickDoor:
    """In front of the framework's own WSGI application, ``behind``."""

    def __init__(self, behind: Application, platform: Platform, settings: Settings) -> None:
        self.behind = behind
        self._platform = platform
        self._base_url = settings.public_base_url
        self._most_bytes = settings.max_webhook_bytes
        self._headers = list(always(settings).items())

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a webhook that is in order; anything else is the framework's."""
        if environ["REQUEST_METHOD"] != "POST":
            return self.behind(environ, start_response)
        found = _PATH.fullmatch(environ["PATH_INFO"])
        answer = _ANSWERS.get(found[1]) if found else None
        target = raw_target(environ)
        length = environ.get("CONTENT_LENGTH") or ""
        if (
            found is None
            or answer is None
            or target is None
            or (found[3] is not None and found[1] != "twilio")
            or not (length.isascii() and length.isdigit() and int(length) <= self._most_bytes)
            or "HTTP_TRANSFER_ENCODING" in environ
            or (answer.content_types and _media_type(environ) not in answer.content_types)
        ):
            return self.behind(environ, start_response)
        provider, token = found[1], found[2]
        began = time.perf_counter()
        request_id = context.begin_request(environ.get("HTTP_X_REQUEST_ID"))
        try:
            accepted = self._accept(environ, provider, token, target, int(length))
        finally:
            context.end_request()
        if not accepted:
            return self.behind(environ, start_response)
        rule = f"/webhooks/{provider}/<token>{found[3] or ''}"
        metrics.request_ended(rule, int(answer.status[:3]), time.perf_counter() - began)
        start_response(answer.status, [*answer.headers, (HEADER, request_id), *self._headers])
        return [answer.body] if answer.body else []

    def _accept(self, environ: Environ, provider: str, token: str, target: str, length: int) -> bool:
        """Whether the event is stored; if not, the body waits for the framework to read it."""
        platform = self._platform
        endpoint = platform.directory.known_endpoint(provider, token)
        if endpoint is None or endpoint.is_platform or endpoint.verification != "enforce":
            return False
        body = _read(environ, length)
        if len(body) != length:
            return False
        context.bind(provider=provider, org_id=str(endpoint.org_id))
        webhook = WebhookRequest("POST", self._base_url + target, headers_of(environ), body)
        platform.database.hurry(DATABASE_SECONDS)
        try:
            event = verification.receive(platform, endpoint, webhook)
            if event.awaits_answer is not None:
                return False
            endpoint, event = routing.route(platform, endpoint, event)
            intake.accept(platform, endpoint, event)
        except Exception:  # noqa: BLE001 - the framework meets it again, and says what it is
            return False
        finally:
            platform.database.hurry(None)
        return True


def _media_type(environ: Environ) -> str:
    content_type: str = environ.get("CONTENT_TYPE") or ""
    return content_type.partition(";")[0].strip().lower()


def _read(environ: Environ, length: int) -> bytes:
    """The body, which stays to be read again; less than all of it when it did not arrive whole."""
    try:
        body: bytes = environ["wsgi.input"].read(length) if length else b""
    except Exception:  # noqa: BLE001 - a connection that broke: each server has its own
        body = b""
    environ["wsgi.input"] = io.BytesIO(body)
    return body
