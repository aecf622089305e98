"""What is configured at Vapi: assistants, phone numbers, tools and credentials, read and changed by its API.

Owns the fields that may be changed (of the DTOs of Vapi's OpenAPI document, those that the product touches)
and that a credential's secret is never shown. Also what every part of the stand-in shares: the bearer key and
how Vapi refuses.
"""

from __future__ import annotations

import uuid
from typing import Any

from flask import Blueprint, Response, jsonify, request

from sandbox.standins.state import State, now

KINDS = {"assistant": "assistants", "phone-number": "phone_numbers", "tool": "tools", "credential": "credentials"}
_FIELDS = {
    "assistant": {"name", "firstMessage", "firstMessageMode", "metadata", "model", "server", "serverMessages"},
    "phone-number": {"name", "assistantId", "server"},
    "tool": {"type", "async", "function", "server", "messages"},
    "credential": {"provider", "name", "authenticationPlan"},
}
_SERVER_FIELDS = {"url", "timeoutSeconds", "credentialId", "backoffPlan", "headers", "staticIpAddressesEnabled"}
_MODES = (
    "assistant-speaks-first",
    "assistant-speaks-first-with-model-generated-message",
    "assistant-waits-for-user",
)
_SECRETS = ("token", "secretKey")


class VapiRefusal(Exception):
    """Vapi answers this HTTP status and message (a list when fields are wrong)."""

    def __init__(self, status: int, error: str, message: str | list[str]) -> None:
        super().__init__(error)
        self.status, self.error, self.message = status, error, message


class VapiSettings:
    """The four kinds of things, each with the same routes."""

    def __init__(self, state: State) -> None:
        self._state = state

    def add_routes(self, blueprint: Blueprint) -> None:
        """GET, POST and PATCH; lists of assistants and phone numbers are the stand-in's own."""
        for kind in ("tool", "credential"):
            blueprint.add_url_rule(f"/<any({kind}):kind>", f"list_{kind}s", self.list_things)
            blueprint.add_url_rule(f"/<any({kind}):kind>", f"create_{kind}", self.create_thing, methods=["POST"])
        for kind in KINDS:
            name = kind.replace("-", "_")
            one = f"/<any('{kind}'):kind>/<thing_id>"
            blueprint.add_url_rule(one, f"get_{name}", self.get_thing)
            blueprint.add_url_rule(one, f"update_{name}", self.update_thing, methods=["PATCH"])

    def list_things(self, kind: str) -> Response:
        """GET all of a kind, the newest first."""
        with self._state.reading("vapi") as branch:
            org_id = authenticate(branch)
            found = [_shown(thing) for thing in branch.get(KINDS[kind], {}).values() if thing["orgId"] == org_id]
        return jsonify(found[::-1])

    def create_thing(self, kind: str) -> tuple[Response, int]:
        """POST a new one."""
        with self._state.changing("vapi") as branch:
            org_id = authenticate(branch)
            fields = _checked(kind, branch, org_id)
            thing_id = str(uuid.uuid4())
            thing = {"id": thing_id, "orgId": org_id, "createdAt": stamp(), "updatedAt": stamp(), **fields}
            branch.setdefault(KINDS[kind], {})[thing_id] = thing
            return jsonify(_shown(thing)), 201

    def get_thing(self, kind: str, thing_id: str) -> Response:
        """GET one."""
        with self._state.reading("vapi") as branch:
            return jsonify(_shown(_own(branch, kind, thing_id)))

    def update_thing(self, kind: str, thing_id: str) -> Response:
        """PATCH one: each field that is given replaces the whole field."""
        with self._state.changing("vapi") as branch:
            thing = _own(branch, kind, thing_id)
            thing.update(_checked(kind, branch, thing["orgId"]) | {"updatedAt": stamp()})
            return jsonify(_shown(thing))

    def listing(self) -> dict[str, list[dict[str, Any]]]:
        """Everything, secrets included."""
        with self._state.reading("vapi") as branch:
            return {kind: [dict(thing) for thing in branch.get(kind, {}).values()] for kind in KINDS.values()}


def authenticate(branch: dict[str, Any]) -> str:
    """The organization of the bearer key."""
    given = request.authorization
    org_id: str | None = branch.get("keys", {}).get(given.token) if given and given.type == "bearer" else None
    if org_id is None:
        raise VapiRefusal(401, "Unauthorized", "Invalid Key. Hot tip, you may be using the public key.")
    return org_id


def stamp() -> str:
    """The present moment as Vapi writes it."""
    return now().strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def _own(branch: dict[str, Any], kind: str, thing_id: str) -> dict[str, Any]:
    org_id = authenticate(branch)
    thing: dict[str, Any] | None = branch.get(KINDS[kind], {}).get(thing_id)
    if thing is None or thing["orgId"] != org_id:
        raise VapiRefusal(404, "Not Found", f"Couldn't Find {kind.title()}. Hot tip, check the ID.")
    return thing


def _checked(kind: str, branch: dict[str, Any], org_id: str) -> dict[str, Any]:
    body = request.get_json(silent=True)
    if not isinstance(body, dict):
        raise VapiRefusal(400, "Bad Request", ["body must be an object"])
    faults = [f"property {name} should not exist" for name in sorted(set(body) - _FIELDS[kind])]
    server = body.get("server") or {}
    faults += [f"server.property {name} should not exist" for name in sorted(set(server) - _SERVER_FIELDS)]
    owned = branch.get("credentials", {}).get(server.get("credentialId"), {}).get("orgId")
    if server.get("credentialId") and owned != org_id:
        faults.append("server.credentialId must be a credential of this organization")
    for tool_id in (body.get("model") or {}).get("toolIds") or []:
        if branch.get("tools", {}).get(tool_id, {}).get("orgId") != org_id:
            faults.append("model.toolIds must be tools of this organization")
    if not isinstance(body.get("firstMessage", ""), str):
        faults.append("firstMessage must be a string")
    if body.get("firstMessageMode", _MODES[0]) not in _MODES:
        faults.append(f"firstMessageMode must be one of the following values: {', '.join(_MODES)}")
    if not isinstance(body.get("metadata", {}), dict):
        faults.append("metadata must be an object")
    if faults:
        raise VapiRefusal(400, "Bad Request", faults)
    taker = body.get("assistantId")
    if taker is not None and branch.get("assistants", {}).get(taker, {}).get("orgId") != org_id:
        raise VapiRefusal(400, "Bad Request", "Couldn't find the `assistantId` given.")
    return body


def _shown(thing: dict[str, Any]) -> dict[str, Any]:
    plan = thing.get("authenticationPlan")
    if not plan:
        return dict(thing)
    return {**thing, "authenticationPlan": {name: value for name, value in plan.items() if name not in _SECRETS}}
