"""The short way of a webhook that is in order, for whatever WSGI server has it.

Owns what is skipped: the web framework, and nothing else. Whatever is not in order (an unknown token, a refused
signature, a body too large, a database that is away) it hands to the framework with the body as it came. Nothing is
done before that which may not be done twice.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterable
from typing import Any

from app.config import Settings
from app.http.arrived import Environ, headers_of, raw_target
from app.http.in_order import Address, InOrder
from app.http.webhooks import DATABASE_SECONDS
from app.observability import context, metrics
from app.services import intake
from app.services.platform import Platform

StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]


class QuickDoor:
    """In front of the framework's own WSGI application, ``behind``."""

    def __init__(self, behind: Application, platform: Platform, settings: Settings) -> None:
        self.behind = behind
        self._platform = platform
        self._in_order = InOrder(platform, settings)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a webhook that is in order; anything else is the framework's."""
        if environ["REQUEST_METHOD"] != "POST" or "HTTP_TRANSFER_ENCODING" in environ:
            return self.behind(environ, start_response)
        length = environ.get("CONTENT_LENGTH") or ""
        address = self._in_order.address(environ["PATH_INFO"], environ.get("CONTENT_TYPE") or "", length)
        target = raw_target(environ)
        if address is None or target is None:
            return self.behind(environ, start_response)
        began = time.perf_counter()
        request_id = context.begin_request(environ.get("HTTP_X_REQUEST_ID"))
        try:
            accepted = self._accept(environ, address, target, int(length))
        finally:
            context.end_request()
        if not accepted:
            return self.behind(environ, start_response)
        answer = address.answer
        metrics.request_ended(address.rule, int(answer.status[:3]), time.perf_counter() - began)
        start_response(answer.status, self._in_order.headers(answer, request_id))
        return [answer.body] if answer.body else []

    def _accept(self, environ: Environ, address: Address, target: str, length: int) -> bool:
        """Whether the event is stored; if not, the body waits for the framework to read it."""
        endpoint = self._in_order.endpoint(address)
        if endpoint is None:
            return False
        body = _read(environ, length)
        if len(body) != length:
            return False
        context.bind(provider=address.provider, org_id=str(endpoint.org_id))
        self._platform.database.hurry(DATABASE_SECONDS)
        try:
            event = self._in_order.event(endpoint, target, headers_of(environ), body)
            if event is None:
                return False
            intake.accept(self._platform, endpoint, event)
        except Exception:  # noqa: BLE001 - the framework meets it again, and says what it is
            return False
        finally:
            self._platform.database.hurry(None)
        return True


def _read(environ: Environ, length: int) -> bytes:
    """The body, which stays to be read again; less than all of it when it did not arrive whole."""
    try:
        body: bytes = environ["wsgi.input"].read(length) if length else b""
    except Exception:  # noqa: BLE001 - a connection that broke: each server has its own
        body = b""
    environ["wsgi.input"] = io.BytesIO(body)
    return body
