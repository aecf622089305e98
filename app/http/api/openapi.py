"""The API described for programs: OpenAPI 3.1, made of the declared operations and their models.

Owns the form of the document alone. What it says of a route is what the route itself checks, because both
read the same declaration; nothing is written down twice.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import orjson
from flask import Response, current_app
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from app.http.api import schemas
from app.http.api.operations import JSON, OPERATIONS, Operation, blueprint

VERSION = "1"
PROBLEM_JSON = "application/problem+json"
REFERENCE = "#/components/schemas/{model}"
LIMIT_HEADERS = {
    "RateLimit-Limit": "requests that the window allows",
    "RateLimit-Remaining": "how many of them are left",
    "RateLimit-Reset": "seconds until the first of them is given back",
}
PROBLEMS = {
    400: "The body is not JSON.",
    401: "No key, or one that is unknown, revoked or expired.",
    403: "The key has not the scope.",
    404: "There is no such thing, or it is another organization's.",
    409: "Something stands in the way; `code` says what.",
    413: "The body is too large.",
    415: "The body is not application/json.",
    422: "The request has not the right shape; `errors` says where.",
    429: "The quota is used up; come back after `Retry-After` seconds.",
    502: "The calendar refuses; `detail` says what to do.",
    503: "Just now it does not work; come back after `Retry-After` seconds.",
}
EVERYWHERE = (401, 403, 422, 429, 503)
_CONVERTERS = {"int": {"type": "integer", "minimum": 1}, "uuid": {"type": "string", "format": "uuid"}}
_PART = re.compile(r"<(?P<converter>\w+)(?:\(.*?\))?:(?P<name>\w+)>")


@blueprint.get("/openapi.json")
def show_openapi() -> Response:
    """The description of this API; needs no key."""
    return Response(_rendered(current_app.config["SETTINGS"].public_base_url), content_type=JSON)


@cache
def _rendered(base_url: str) -> bytes:
    return orjson.dumps(describe(base_url))


def describe(base_url: str) -> dict[str, Any]:
    """The whole document."""
    paths: dict[str, dict[str, Any]] = {}
    for declared in OPERATIONS.values():
        path = _PART.sub(r"{\g<name>}", f"{blueprint.url_prefix}{declared.rule}")
        paths.setdefault(path, {})[declared.method.lower()] = _operation(declared)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Voicedesk",
            "version": VERSION,
            "description": "Calls, texts and appointments of one organization, and the events they came from.",
        },
        "servers": [{"url": base_url}],
        "security": [{"bearer": []}, {"apiKey": []}],
        "paths": paths,
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
            },
        },
    }


def _operation(declared: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": declared.name,
        "summary": declared.summary,
        "description": f"Needs a key with the scope `{declared.scope}`.",
        "tags": [declared.rule.split("/")[2]],
        "parameters": [
            *_path_parameters(declared),
            *_parameters(declared.query, "query"),
            *_parameters(declared.headers, "header"),
        ],
        "responses": {
            **{str(status): _answer(declared, status) for status in declared.statuses},
            **{str(status): _problem(status) for status in sorted({*EVERYWHERE, *declared.problems})},
        },
    }
    if declared.body is not None:
        described["requestBody"] = {"required": True, "content": {JSON: {"schema": _reference(declared.body)}}}
    return described


def _path_parameters(declared: Operation) -> list[dict[str, Any]]:
    return [
        {"name": part["name"], "in": "path", "required": True, "schema": _CONVERTERS[part["converter"]]}
        for part in _PART.finditer(declared.rule)
    ]


def _parameters(model: type[BaseModel] | None, place: str) -> list[dict[str, Any]]:
    """Query or header parameters, one for each field of the model."""
    if model is None:
        return []
    schema = model.model_json_schema()
    return [
        {
            "name": name,
            "in": place,
            "required": name in schema.get("required", []),
            "description": prop.get("description", ""),
            "schema": _parameter_schema(prop),
        }
        for name, prop in schema["properties"].items()
    ]


def _parameter_schema(prop: dict[str, Any]) -> dict[str, Any]:
    """A parameter is left out rather than null."""
    kept = {key: value for key, value in prop.items() if key not in ("title", "description", "anyOf")}
    if kept.get("default", 0) is None:
        del kept["default"]
    some = [choice for choice in prop.get("anyOf", []) if choice != {"type": "null"}]
    return {**kept, **some[0]} if some else kept


def _answer(declared: Operation, status: int) -> dict[str, Any]:
    return {
        "description": (declared.answer.__doc__ or "").strip() or str(status),
        "headers": {name: {"description": said, "schema": {"type": "integer"}} for name, said in LIMIT_HEADERS.items()},
        "content": {JSON: {"schema": _reference(declared.answer)}},
    }


def _problem(status: int) -> dict[str, Any]:
    return {"description": PROBLEMS[status], "content": {PROBLEM_JSON: {"schema": _reference(schemas.Problem)}}}


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": REFERENCE.format(model=model.__name__)}


def _schemas() -> dict[str, Any]:
    asked = {declared.body for declared in OPERATIONS.values() if declared.body}
    told = {declared.answer for declared in OPERATIONS.values()} | {schemas.Problem}
    _, definitions = models_json_schema(
        [
            *((model, "validation") for model in sorted(asked, key=lambda model: model.__name__)),
            *((model, "serialization") for model in sorted(told, key=lambda model: model.__name__)),
        ],
        ref_template=REFERENCE,
    )
    described: dict[str, Any] = definitions["$defs"]
    return described
