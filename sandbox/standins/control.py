"""The strings behind the scenery: ``/_control/<what>`` sets up, breaks and inspects the world, as JSON.

Owns the way from an HTTP request to one function of a stand-in; must not know what providers do.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Response, jsonify, request

if TYPE_CHECKING:
    from sandbox.standins.server import Outside


class Control:
    """Every control by its name: POST with JSON arguments, or GET with none, answers JSON."""

    def __init__(self, outside: Outside) -> None:
        self._outside = outside
        self._controls: dict[str, Callable[..., Any]] = {
            "fault": outside.faults.switch_on,
            "clear_faults": outside.faults.clear,
            "faults": outside.faults.listing,
            "requests": self._requests,
            "latency": self._latency,
            "reset": outside.reset,
        }
        for provider in outside.providers.values():
            self._controls.update(provider.controls())

    def blueprint(self) -> Blueprint:
        """The two routes: one control by its name, and the list of them."""
        blueprint = Blueprint("control", __name__, url_prefix="/_control")
        blueprint.add_url_rule("/", view_func=self._list)
        blueprint.add_url_rule("/<name>", view_func=self._run, methods=["GET", "POST"])
        return blueprint

    def _list(self) -> Response:
        return jsonify({name: str(inspect.signature(control)) for name, control in sorted(self._controls.items())})

    def _run(self, name: str) -> tuple[Response, int]:
        control = self._controls.get(name)
        if control is None:
            return jsonify({"error": f"there is no control {name}"}), 404
        arguments = request.get_json() if request.method == "POST" else {}
        try:
            inspect.signature(control).bind(**arguments)
            return jsonify(control(**arguments)), 200
        except (TypeError, ValueError, KeyError) as error:
            return jsonify({"error": f"{name}: {type(error).__name__}: {error}"}), 400

    def _requests(self, provider: str | None = None, operation: str | None = None) -> list[dict[str, Any]]:
        return [
            kept
            for kept in list(self._outside.remembered)
            if provider in (None, kept["provider"]) and operation in (None, kept["operation"])
        ]

    def _latency(self, seconds: float) -> float:
        self._outside.latency = seconds
        return seconds
