"""How a route of the API is declared, asked and answered; the routes themselves are in the files beside.

Owns the order of one request: key, scope, query, body, then the view, then the shape of its answer. A view
gets checked values and gives plain data back. Also owns how the API's failures look.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, TypeVar

import orjson
from flask import Blueprint, Response, current_app, request
from pydantic import BaseModel, ValidationError
from werkzeug.exceptions import BadRequest

from app.errors import (
    CredentialsRefused,
    DatabaseUnavailable,
    InvalidInput,
    KeyMissing,
    KeyRefused,
    NotFound,
    PermanentFailure,
    ScopeMissing,
    TemporaryFailure,
    UnsupportedContentType,
    VoicedeskError,
)
from app.http.api import auth
from app.http.bodies import read_body
from app.http.problems import problem, unavailable
from app.services.api_keys import Caller
from app.services.platform import Platform

JSON = "application/json"
LARGEST_BODY = 64_000
RETRY_AFTER_SECONDS = 5
CONFLICTS = {"unfinished", "raw", "answered", "not_connected", "words_gone", "erased"}

PUBLIC = {"api.show_openapi"}

blueprint = Blueprint("api", __name__, url_prefix="/api")


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that may be answered: who asks (``caller``), and what, checked."""

    platform: Platform
    caller: Caller
    query: Any
    body: Any
    headers: Any

    @property
    def actor(self) -> str:
        """Who asks, for the audit trail."""
        return f"api:{self.caller.prefix}"

    @property
    def stretch(self) -> dict[str, Any]:
        """Which stretch of a list is asked for, as ``api_reads.page`` takes it."""
        return {name: getattr(self.query, name) for name in ("limit", "cursor", "since", "until")}


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer that is not plainly 200."""

    data: Mapping[str, Any]
    status: int
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Operation:
    """What a route takes and gives; the description of the API is made of these."""

    name: str
    method: str
    rule: str
    scope: str
    summary: str
    answer: type[BaseModel]
    statuses: tuple[int, ...]
    problems: tuple[int, ...]
    query: type[BaseModel] | None = None
    body: type[BaseModel] | None = None
    headers: type[BaseModel] | None = None


OPERATIONS: dict[str, Operation] = {}  # by the endpoint's name in Flask
View = TypeVar("View", bound=Callable[..., Mapping[str, Any] | Answered])


def operation(
    method: str,
    rule: str,
    *,
    scope: str,
    answer: type[BaseModel],
    query: type[BaseModel] | None = None,
    body: type[BaseModel] | None = None,
    headers: type[BaseModel] | None = None,
    statuses: tuple[int, ...] = (200,),
    problems: tuple[int, ...] = (),
) -> Callable[[View], View]:
    """Declare a view as a route below ``/api/v1``; it is called with an Asked and the ids of its path."""

    def declare(view: View) -> View:
        declared = Operation(
            name=view.__name__,
            method=method,
            rule=f"/v1{rule}",
            scope=scope,
            summary=(view.__doc__ or "").strip(),
            answer=answer,
            statuses=statuses,
            problems=problems,
            query=query,
            body=body,
            headers=headers,
        )
        OPERATIONS[f"{blueprint.name}.{declared.name}"] = declared

        @wraps(view)
        def answered(**ids: Any) -> Response:
            return _respond(declared, view(_ask(declared), **ids))

        blueprint.add_url_rule(declared.rule, declared.name, answered, methods=[method])
        return view

    return declare


def _ask(declared: Operation) -> Asked:
    caller = auth.caller_with(declared.scope)
    platform: Platform = current_app.extensions["platform"]
    return Asked(
        platform=platform,
        caller=caller,
        query=_check(declared.query, _query(declared), "query"),
        headers=_check(declared.headers, _headers(declared.headers), "header"),
        body=_check(declared.body, _body(), "body") if declared.body else None,
    )


def _respond(declared: Operation, given: Mapping[str, Any] | Answered) -> Response:
    answered = given if isinstance(given, Answered) else Answered(given, 200)
    shaped = declared.answer.model_validate(answered.data)
    response = Response(shaped.model_dump_json(by_alias=True), status=answered.status, content_type=JSON)
    response.headers.update(answered.headers)
    return response


class WrongQuestion(Exception):
    """What was asked has not the right shape; ``faults`` say where."""

    def __init__(self, faults: list[dict[str, str]]) -> None:
        super().__init__("the question has not the right shape")
        self.faults = faults


def _check(model: type[BaseModel] | None, given: Any, place: str) -> Any:
    if model is None:
        return None
    try:
        return model.model_validate(given)
    except ValidationError as error:
        faults = error.errors(include_input=False, include_url=False, include_context=False)
        raise WrongQuestion([_fault(fault["loc"], fault["type"], fault["msg"], place) for fault in faults]) from None


def _fault(where: tuple[int | str, ...], code: str, message: str, place: str) -> dict[str, str]:
    field_name = ".".join(str(part) for part in where)
    return {"in": place, "field": field_name, "code": code, "message": message.removeprefix("Value error, ")}


def _query(declared: Operation) -> dict[str, str]:
    """Each parameter once; a route that knows none refuses all."""
    given = request.args.to_dict(flat=False)
    known = {} if declared.query is None else declared.query.model_fields
    twice = [name for name, values in given.items() if len(values) > 1]
    faults = [_fault((name,), "given_twice", "may be given only once", "query") for name in twice]
    faults += [_fault((name,), "extra_forbidden", "is not known here", "query") for name in given if name not in known]
    if faults:
        raise WrongQuestion(faults)
    return {name: values[0] for name, values in given.items()}


def _headers(model: type[BaseModel] | None) -> dict[str, str]:
    names = [item.alias or name for name, item in model.model_fields.items()] if model else []
    return {name: request.headers[name] for name in names if name in request.headers}


def _body() -> Any:
    if request.mimetype != JSON:
        raise UnsupportedContentType("a body of application/json is needed")
    try:
        return orjson.loads(read_body(LARGEST_BODY))
    except orjson.JSONDecodeError:
        raise BadRequest("the body is not JSON") from None


@blueprint.before_request
def _refuse_without_key() -> None:
    """Also a route that somebody adds without declaring it. A browser's preflight carries no key."""
    if request.endpoint not in PUBLIC and request.method != "OPTIONS":
        auth.caller()


@blueprint.errorhandler(WrongQuestion)
def _wrong_question(error: WrongQuestion) -> Response:
    return problem(422, "invalid_request", "The request has not the right shape; see errors.", errors=error.faults)


@blueprint.errorhandler(KeyMissing)
@blueprint.errorhandler(KeyRefused)
def _not_authenticated(error: KeyMissing | KeyRefused) -> Response:
    response = problem(error.status, error.code, f"{error} {error.advice}".strip())
    invalid = ', error="invalid_token"' if isinstance(error, KeyRefused) else ""
    response.headers["WWW-Authenticate"] = auth.REALM + invalid
    return response


@blueprint.errorhandler(ScopeMissing)
def _scope_missing(error: ScopeMissing) -> Response:
    response = problem(error.status, error.code, str(error))
    response.headers["WWW-Authenticate"] = f'{auth.REALM}, error="insufficient_scope"'
    return response


@blueprint.errorhandler(UnsupportedContentType)
def _unsupported(error: UnsupportedContentType) -> Response:
    return problem(error.status, error.code, str(error))


@blueprint.errorhandler(NotFound)
def _not_found(error: NotFound) -> Response:
    return problem(404, error.code, str(error))


@blueprint.errorhandler(InvalidInput)
@blueprint.errorhandler(PermanentFailure)
def _cannot(error: VoicedeskError) -> Response:
    """409 for what stands in the way here, 422 for what was asked, 502 for what a provider refuses."""
    is_asked_wrong = isinstance(error, InvalidInput) or error.code == "key_reused"
    status = 409 if error.code in CONFLICTS else 422 if is_asked_wrong else 502
    return problem(status, error.code, f"{error} {error.advice}".strip())


@blueprint.errorhandler(TemporaryFailure)
def _not_now(error: TemporaryFailure) -> Response:
    """A provider is away, or a question took too long; the same may work later."""
    wish = error.retry_after.total_seconds() if error.retry_after else RETRY_AFTER_SECONDS
    if isinstance(error, DatabaseUnavailable):
        return unavailable(error)
    if isinstance(error, CredentialsRefused):  # works again when somebody renews them, not after seconds
        return problem(502, error.code, f"{error} {error.advice}".strip())
    response = problem(503, error.code, f"{error} {error.advice}".strip())
    response.headers["Retry-After"] = str(max(1, round(wish)))
    return response
