"""The one HTTP server behind which the whole outside world stands.

Owns the port, the latency of every answer, the faults on a request's way and the memory of requests.
What a request means is the business of the provider whose prefix its path carries.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from flask import Blueprint, Flask, Response, g, request
from werkzeug.datastructures import MultiDict
from werkzeug.serving import WSGIRequestHandler, make_server

from sandbox.standins.control import Control
from sandbox.standins.faults import LONGEST_HANG_SECONDS, Fault, FaultBoard
from sandbox.standins.google_calendar import GoogleStandIn
from sandbox.standins.slack import SlackStandIn
from sandbox.standins.state import State, now
from sandbox.standins.twilio import TwilioStandIn
from sandbox.standins.vapi import VapiStandIn
from sandbox.standins.world import RemoteWorld

DEFAULT_LATENCY_SECONDS = 0.005
REMEMBERED_REQUESTS = 50_000
STOP_SECONDS = 10.0
_SECRET_FIELDS = frozenset({"client_secret", "refresh_token", "assertion", "token", "code", "code_verifier"})


class ProviderStandIn(Protocol):
    """What every provider's stand-in offers to the server and to control."""

    def blueprint(self) -> Blueprint:
        """The provider's routes."""

    def fault_response(self, status: int, retry_after: int | None) -> Response:
        """The provider's own 404, 405, 429 or 500."""

    def controls(self) -> dict[str, Any]:
        """What tests may set and see, by name: functions that take and give plain JSON."""

    def close(self) -> None:
        """Stop whatever runs in the background."""


class Outside:
    """Vapi, Twilio, Google and Slack as one WSGI application."""

    def __init__(self, *, latency: float = DEFAULT_LATENCY_SECONDS, state_path: Path | None = None) -> None:
        self.latency = self._usual_latency = latency
        self.faults = FaultBoard()
        self.remembered: deque[dict[str, Any]] = deque(maxlen=REMEMBERED_REQUESTS)
        self.state = State(state_path)
        self.providers: dict[str, ProviderStandIn] = {
            "twilio": TwilioStandIn(self.state),
            "google": GoogleStandIn(self.state),
            "vapi": VapiStandIn(self.state),
            "slack": SlackStandIn(self.state),
        }
        self.app = Flask("standins", static_folder=None)
        # An exception must reach the server: it is either a cut connection or a fault of ours to be seen.
        self.app.config["PROPAGATE_EXCEPTIONS"] = True
        for provider in self.providers.values():
            self.app.register_blueprint(provider.blueprint())
        self.app.register_blueprint(Control(self).blueprint())
        self.app.before_request(self._on_the_way_in)
        self.app.after_request(self._on_the_way_out)
        self.app.register_error_handler(404, lambda _: self._no_such_route(404))
        self.app.register_error_handler(405, lambda _: self._no_such_route(405))

    def reset(self) -> None:
        """Forget accounts, messages, events, requests and faults; the latency is that of the start."""
        self.latency = self._usual_latency
        self.faults.clear()
        self.remembered.clear()
        self.state.forget()

    def close(self) -> None:
        """Let go of what hangs and stop the background work."""
        self.faults.clear()
        for provider in self.providers.values():
            provider.close()

    def _on_the_way_in(self) -> Response | None:
        g.provider, g.operation, g.fault = _provider_of(request.path), _operation_of(request.endpoint), None
        if g.provider not in self.providers:
            return None
        request.get_data(cache=True)
        if self.latency:
            time.sleep(self.latency)
        g.fault = self.faults.meet(g.provider, g.operation)
        return self._suffer(g.fault) if g.fault else None

    def _suffer(self, fault: Fault) -> Response | None:
        """Apply what happens before the work; None lets the work be done."""
        if fault.kind == "slow":
            fault.cleared.wait(fault.seconds)
        elif fault.kind == "error_500":
            return self.providers[fault.provider].fault_response(500, None)
        elif fault.kind == "throttle_429":
            return self.providers[fault.provider].fault_response(429, fault.retry_after)
        elif fault.kind == "hang":
            self._remember(None)
            fault.cleared.wait(LONGEST_HANG_SECONDS)
            _cut()
        elif fault.kind == "cut_before":
            self._remember(None)
            _cut()
        return None

    def _on_the_way_out(self, response: Response) -> Response:
        if g.provider not in self.providers:
            return response
        kind = g.fault.kind if g.fault else ""
        if kind == "cut_after":
            self._remember(None)
            _cut()
        if kind == "error_500_after":
            response = self.providers[g.provider].fault_response(500, None)
        self._remember(response.status_code)
        return response

    def _no_such_route(self, status: int) -> Response:
        provider = self.providers.get(_provider_of(request.path))
        return provider.fault_response(status, None) if provider else Response(status=status)

    def _remember(self, status: int | None) -> None:
        """Keep the request; ``status`` None means it got no answer. Credentials are left out."""
        self.remembered.append(
            {
                "provider": g.provider,
                "operation": g.operation,
                "method": request.method,
                "path": request.path,
                "query": _flat(request.args),
                "headers": {name: value for name, value in request.headers if name != "Authorization"},
                "body": _body(),
                "status": status,
                "fault": g.fault.kind if g.fault else None,
                "at": now().isoformat(),
            }
        )


class StandIns:
    """The outside world served from threads of this process; ``world`` is the way to control it."""

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        latency: float = DEFAULT_LATENCY_SECONDS,
        state_path: Path | None = None,
    ) -> None:
        self._outside = Outside(latency=latency, state_path=state_path)
        self._server = make_server(host, port, self._outside.app, threaded=True, request_handler=_QuietHandler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="stand-ins", daemon=True)
        self._thread.start()
        self.world = RemoteWorld(f"http://{host}:{self._server.server_port}")

    @classmethod
    @contextmanager
    def running(
        cls, *, port: int = 0, latency: float = DEFAULT_LATENCY_SECONDS, state_path: Path | None = None
    ) -> Iterator[RemoteWorld]:
        """Serve for the length of a with-block; ``latency`` is seconds before every answer, port 0 a free one."""
        standins = cls(port=port, latency=latency, state_path=state_path)
        try:
            yield standins.world
        finally:
            standins.stop()

    def stop(self) -> None:
        """Stop answering; returns when the port is free."""
        self._outside.close()
        self._server.shutdown()
        self._thread.join(STOP_SECONDS)
        self._server.server_close()


class _QuietHandler(WSGIRequestHandler):
    """A terminal full of access lines helps nobody; every request is remembered anyway."""

    disable_nagle_algorithm = True

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing."""


def _cut() -> None:
    """Close the connection with no answer, as a dying load balancer does."""
    request.environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    raise ConnectionAbortedError("cut on purpose")


def _provider_of(path: str) -> str:
    first = path.lstrip("/").partition("/")[0]
    return "google" if first == "token" else first


def _operation_of(endpoint: str | None) -> str:
    return endpoint.rpartition(".")[2] if endpoint else "unknown"


def _body() -> Any:
    """Form as a dictionary, JSON as it is, anything else as text."""
    if request.form:
        return _flat(request.form)
    text = request.get_data(as_text=True)
    try:
        return json.loads(text) if text else None
    except ValueError:
        return text


def _flat(values: MultiDict[str, str]) -> dict[str, Any]:
    """Repeated names become lists, secrets of the OAuth grants stars."""
    flat: dict[str, Any] = {}
    for name, found in values.lists():
        flat[name] = "***" if name in _SECRET_FIELDS else found[0] if len(found) == 1 else found
    return flat
