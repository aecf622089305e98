"""Vapi's REST API: assistants, phone numbers and calls, behind a bearer key.

Owns the fields of a call that Vapi knows (CreateCallDTO of its OpenAPI document) and its errors' shape,
that of a NestJS application that refuses fields it does not know. Nobody's phone rings.
"""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime
from typing import Any

from flask import Blueprint, Response, jsonify, request
from werkzeug.exceptions import BadRequest

from sandbox.standins.state import State
from sandbox.standins.vapi_settings import VapiRefusal, VapiSettings, authenticate, stamp

LARGEST_LIMIT, DEFAULT_LIMIT = 1000, 100
_E164 = re.compile(r"\+[1-9]\d{6,14}")
_CALL_FIELDS = {
    "name", "assistantId", "assistant", "assistantOverrides", "squadId", "squad", "squadOverrides", "workflowId",
    "workflow", "workflowOverrides", "phoneNumberId", "phoneNumber", "customerId", "customer", "customers",
    "schedulePlan", "transport",
}  # fmt: skip
_CUSTOMER_FIELDS = {
    "number", "numberE164CheckEnabled", "extension", "sipUri", "name", "email", "externalId", "assistantOverrides",
}  # fmt: skip
_WHO_TALKS = ("assistantId", "assistant", "squadId", "squad", "workflowId", "workflow")
_DATE_FILTERS = {f"{field}{edge}" for field in ("createdAt", "updatedAt") for edge in ("Gt", "Lt", "Ge", "Le")}


class VapiStandIn:
    """Vapi under the prefix ``/vapi``."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._settings = VapiSettings(state)

    def blueprint(self) -> Blueprint:
        """The routes; the names of their functions are the operations that faults can be set for."""
        blueprint = Blueprint("vapi", __name__, url_prefix="/vapi")
        blueprint.add_url_rule("/assistant", view_func=self.list_assistants)
        blueprint.add_url_rule("/phone-number", view_func=self.list_phone_numbers)
        blueprint.add_url_rule("/call", view_func=self.create_call, methods=["POST"])
        blueprint.add_url_rule("/call", view_func=self.list_calls)
        blueprint.add_url_rule("/call/<call_id>", view_func=self.get_call)
        self._settings.add_routes(blueprint)
        blueprint.register_error_handler(VapiRefusal, _refuse)
        return blueprint

    def close(self) -> None:
        """Nothing runs in the background."""

    def fault_response(self, status: int, retry_after: int | None) -> Response:
        """Vapi's own error body for 404, 405, 429 and 500."""
        refusal = {
            404: VapiRefusal(404, "Not Found", f"Cannot {request.method} {request.path.removeprefix('/vapi')}"),
            405: VapiRefusal(404, "Not Found", f"Cannot {request.method} {request.path.removeprefix('/vapi')}"),
            429: VapiRefusal(429, "Too Many Requests", "ThrottlerException: Too Many Requests"),
        }.get(status, VapiRefusal(500, "Internal Server Error", "Internal server error"))
        response = _refuse(refusal)[0]
        response.status_code = refusal.status
        if retry_after is not None:
            response.headers["Retry-After"] = str(retry_after)
        return response

    # --- operations --------------------------------------------------------------------------

    def list_assistants(self) -> Response:
        """GET /assistant: a JSON array, the newest first."""
        return self._list("assistants", set())

    def list_phone_numbers(self) -> Response:
        """GET /phone-number: a JSON array, the newest first."""
        return self._list("phone_numbers", set())

    def list_calls(self) -> Response:
        """GET /call: a JSON array, the newest first, by assistant, phone number and dates."""
        return self._list("calls", {"id", "assistantId", "phoneNumberId"})

    def get_call(self, call_id: str) -> Response:
        """GET /call/{id}."""
        with self._state.reading("vapi") as branch:
            org_id = authenticate(branch)
            call = branch.get("calls", {}).get(call_id)
            if call is None or call["orgId"] != org_id:
                raise VapiRefusal(404, "Not Found", "Call Not Found")
            return jsonify(call)

    def create_call(self) -> tuple[Response, int]:
        """POST /call: 201 and a queued call."""
        with self._state.changing("vapi") as branch:
            org_id = authenticate(branch)
            try:
                body = request.get_json(force=True)
            except BadRequest:
                raise VapiRefusal(400, "Bad Request", "Request body is not valid JSON") from None
            _check_call(body, branch, org_id)
            created = stamp()
            call = body | {
                "id": str(uuid.uuid4()),
                "orgId": org_id,
                "type": "outboundPhoneCall",
                "status": "queued",
                "createdAt": created,
                "updatedAt": created,
                "phoneCallProvider": "twilio",
                "phoneCallProviderId": "CA" + uuid.uuid4().hex,
                "phoneCallTransport": "pstn",
                "cost": 0,
            }
            branch.setdefault("calls", {})[call["id"]] = call
            return jsonify(call), 201

    def _list(self, kind: str, filters: set[str]) -> Response:
        unknown = set(request.args) - filters - _DATE_FILTERS - {"limit"}
        with self._state.reading("vapi") as branch:
            org_id = authenticate(branch)
            if unknown:
                raise VapiRefusal(400, "Bad Request", [f"property {name} should not exist" for name in sorted(unknown)])
            limit = _limit()
            found = [
                thing
                for thing in _newest_first(branch.get(kind, {}))
                if thing["orgId"] == org_id
                and all(thing.get(name) == request.args[name] for name in filters if name in request.args)
                and all(_in_time(thing, name) for name in _DATE_FILTERS if name in request.args)
            ]
            return jsonify(found[:limit])

    # --- controls ----------------------------------------------------------------------------

    def controls(self) -> dict[str, Any]:
        """What tests may set and see."""
        return {
            "vapi_key": self._put_key,
            "assistant": self._put_assistant,
            "phone_number": self._put_phone_number,
            "put_call": self._put_call,
            "calls": self._calls,
            "vapi_settings": self._settings.listing,
        }

    def _put_key(self, key: str, org_id: str | None = None) -> str:
        with self._state.changing("vapi") as branch:
            keys: dict[str, str] = branch.setdefault("keys", {})
            keys[key] = org_id or keys.get(key) or str(uuid.uuid4())
            return keys[key]

    def _put_assistant(self, key: str, name: str, assistant_id: str | None = None, **fields: Any) -> dict[str, Any]:
        return self._put("assistants", key, {**fields, "id": assistant_id, "name": name})

    def _put_phone_number(
        self, key: str, number: str, phone_number_id: str | None = None, **fields: Any
    ) -> dict[str, Any]:
        return self._put(
            "phone_numbers", key, {**fields, "id": phone_number_id, "number": number, "provider": "twilio"}
        )

    def _put_call(self, key: str, **fields: Any) -> dict[str, Any]:
        """Add a call, or change the one with this ``id``, as if it had gone on."""
        return self._put("calls", key, fields)

    def _put(self, kind: str, key: str, fields: dict[str, Any]) -> dict[str, Any]:
        with self._state.changing("vapi") as branch:
            thing_id = fields.get("id") or str(uuid.uuid4())
            fresh = {"orgId": branch["keys"][key], "createdAt": stamp()}
            known: dict[str, Any] = branch.setdefault(kind, {}).setdefault(thing_id, fresh)
            known.update(fields | {"id": thing_id, "updatedAt": stamp()})
            return dict(known)

    def _calls(self) -> list[dict[str, Any]]:
        with self._state.reading("vapi") as branch:
            return [dict(call) for call in branch.get("calls", {}).values()]


def _refuse(refusal: VapiRefusal) -> tuple[Response, int]:
    body = {"message": refusal.message, "error": refusal.error, "statusCode": refusal.status}
    return jsonify(body), refusal.status


def _check_call(body: Any, branch: dict[str, Any], org_id: str) -> None:
    if not isinstance(body, dict):
        raise VapiRefusal(400, "Bad Request", ["body must be an object"])
    faults = [f"property {name} should not exist" for name in sorted(set(body) - _CALL_FIELDS)]
    faults += [f"{name} must be a UUID" for name in ("assistantId", "phoneNumberId") if not _uuid_or_none(body, name)]
    faults += _customer_faults(body.get("customer"))
    if faults:
        raise VapiRefusal(400, "Bad Request", faults)
    if not any(body.get(name) for name in _WHO_TALKS):
        raise VapiRefusal(400, "Bad Request", "Need Either `assistantId`, `assistant`, `squadId`, or `squad`.")
    if not (body.get("phoneNumberId") or body.get("phoneNumber")):
        raise VapiRefusal(400, "Bad Request", "Need Either `phoneNumberId` Or `phoneNumber`.")
    if body.get("customer") is None:
        raise VapiRefusal(400, "Bad Request", "Need Either `customerId` Or `customer`.")
    for name, kind in (("assistantId", "assistants"), ("phoneNumberId", "phone_numbers")):
        if body.get(name) and branch.get(kind, {}).get(body[name], {}).get("orgId") != org_id:
            raise VapiRefusal(400, "Bad Request", f"Couldn't find the `{name}` given.")


def _customer_faults(customer: Any) -> list[str]:
    if customer is None:
        return []
    if not isinstance(customer, dict):
        return ["customer must be an object"]
    faults = [f"customer.property {name} should not exist" for name in sorted(set(customer) - _CUSTOMER_FIELDS)]
    checked = customer.get("numberE164CheckEnabled", True) and "sipUri" not in customer
    if checked and not _E164.fullmatch(str(customer.get("number", ""))):
        faults.append("customer.number must be a valid phone number in the E.164 format.")
    return faults


def _uuid_or_none(body: dict[str, Any], name: str) -> bool:
    try:
        return body.get(name) is None or bool(uuid.UUID(body[name]))
    except (ValueError, AttributeError, TypeError):
        return False


def _newest_first(things: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    latest_made_first = list(things.values())[::-1]
    return sorted(latest_made_first, key=lambda one: datetime.fromisoformat(one["createdAt"]), reverse=True)


def _limit() -> int:
    try:
        limit = int(request.args.get("limit", DEFAULT_LIMIT))
    except ValueError:
        raise VapiRefusal(400, "Bad Request", ["limit must be a number"]) from None
    if not 0 <= limit <= LARGEST_LIMIT:
        bound = "less than 0" if limit < 0 else f"greater than {LARGEST_LIMIT}"
        raise VapiRefusal(400, "Bad Request", [f"limit must not be {bound}"])
    return limit


def _in_time(thing: dict[str, Any], name: str) -> bool:
    field, edge = name[:-2], name[-2:]
    try:
        limit = datetime.fromisoformat(request.args[name])
    except ValueError:
        raise VapiRefusal(400, "Bad Request", [f"{name} must be a Date instance"]) from None
    limit = limit if limit.tzinfo else limit.replace(tzinfo=UTC)
    moment = datetime.fromisoformat(thing[field])
    return {"Gt": moment > limit, "Lt": moment < limit, "Ge": moment >= limit, "Le": moment <= limit}[edge]
