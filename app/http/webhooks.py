"""The providers' door: size, content type, signature, parse, then one service.

Owns the order in which a webhook is looked at; nothing is trusted, and no body is parsed, before its
signature holds. How each provider signs and talks is in its integration. While the database is away, what cannot
even be looked up is kept in the spool as it came, and thanked for.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial

import orjson
from flask import Blueprint, Response, current_app, g, request

from app.errors import (
    ConfigurationError,
    DatabaseUnavailable,
    MalformedEvent,
    RequestRefused,
    SignatureInvalid,
    SignatureMissing,
    UnknownEndpoint,
    UnsupportedContentType,
)
from app.http.addresses import client_network
from app.http.arrived import headers_of, raw_target
from app.http.bodies import read_body
from app.http.problems import problem
from app.integrations import twilio
from app.integrations.doors import DOORS
from app.integrations.events import InboundEvent, WebhookRequest
from app.integrations.front_door import FrontDoor
from app.observability import context
from app.observability.logging import get_logger
from app.services import answers, intake, routing, verification
from app.services.directory import LONGEST_TOKEN, Endpoint
from app.services.platform import Platform

blueprint = Blueprint("webhooks", __name__, url_prefix="/webhooks")

DATABASE_SECONDS = 2.0  # for all that one webhook asks of the database; after that the spool has it

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
TWIML = "text/xml; charset=utf-8"

log = get_logger(__name__)


class _KeptUnread(Exception):
    """The request is in the spool; who it is from or for is not known yet."""

    def __init__(self, provider: str, webhook: WebhookRequest) -> None:
        super().__init__(provider)
        self.provider = provider
        self.webhook = webhook


@blueprint.before_request
def _hurry() -> None:
    _platform().database.hurry(DATABASE_SECONDS)


@blueprint.teardown_request
def _take_time(_: BaseException | None) -> None:
    _platform().database.hurry(None)


@blueprint.post("/vapi/<token>")
def receive_vapi(token: str) -> Response:
    """A server message of Vapi's; some wait for a body to speak from."""
    platform, endpoint, event = _receive("vapi", token, content_types=(JSON,))
    if event.awaits_answer is not None:
        try:
            return _json(answers.answer(platform, endpoint, event))
        except DatabaseUnavailable:
            with suppress(DatabaseUnavailable):  # a record is lost then; silence on the line would be worse
                platform.spool.keep_event(endpoint, event)
            return _json(answers.cannot_answer(event))
    intake.accept(platform, endpoint, event)
    return _json({})


@blueprint.post("/twilio/<token>")
def receive_twilio(token: str) -> Response:
    """A text that came in; answered with an empty document, because replies are sent, not spoken here."""
    return _receive_twilio(token)


@blueprint.post("/twilio/<token>/status")
def receive_twilio_status(token: str) -> Response:
    """News of a text that went out."""
    return _receive_twilio(token)


def _receive_twilio(token: str) -> Response:
    content_types = (FORM, JSON) if "bodySHA256" in request.args else (FORM,)
    platform, endpoint, event = _receive("twilio", token, content_types=content_types)
    intake.accept(platform, endpoint, event)
    return Response(twilio.TWIML_EMPTY, content_type=TWIML)


@blueprint.post("/google-calendar/<token>")
def receive_google_calendar(token: str) -> Response:
    """Google says that a calendar changed: go and sync. Its body is empty."""
    platform, endpoint, event = _receive("google-calendar", token, content_types=())
    intake.accept(platform, endpoint, event)
    return Response(status=204)


def _receive_at(door: FrontDoor, token: str) -> Response:
    """An event of a provider that only wants to hear that it was stored."""
    platform, endpoint, event = _receive(door.provider, token, content_types=door.content_types)
    intake.accept(platform, endpoint, event)
    return _json({})


def _greet_at(door: FrontDoor, token: str) -> Response:
    """A provider's question before it sends anything; nothing is stored."""
    _, endpoint, _ = _look_up(door.provider, token, content_types=())
    return Response(verification.greet(endpoint, request.args.to_dict()), content_type="text/plain; charset=utf-8")


for _door in DOORS.values():
    _rule, _name = f"/{_door.provider}/<token>", _door.provider.replace("-", "_")
    blueprint.add_url_rule(_rule, f"receive_{_name}", partial(_receive_at, _door), methods=["POST"])
    if _door.greet is not None:
        blueprint.add_url_rule(_rule, f"greet_{_name}", partial(_greet_at, _door), methods=["GET"])


@blueprint.errorhandler(_KeptUnread)
def _thank(kept: _KeptUnread) -> Response:
    """What the provider takes for "it arrived"; a caller hears a sentence that promises nothing.

    Its body is read for that alone, and what it says decides nothing but the sentence.
    """
    if kept.provider == "twilio":
        return Response(twilio.TWIML_EMPTY, content_type=TWIML)
    if kept.provider == "google-calendar":
        return Response(status=204)
    try:
        event = verification.read(kept.provider, kept.webhook)
    except MalformedEvent:
        return _json({})
    return _json(answers.cannot_answer(event) if event.awaits_answer else {})


@blueprint.errorhandler(UnknownEndpoint)
@blueprint.errorhandler(SignatureMissing)
@blueprint.errorhandler(SignatureInvalid)
def _refuse(error: RequestRefused) -> Response:
    """Too many from one address at one door make a refusal cheaper; they refuse nothing that is valid."""
    platform = _platform()
    times = platform.refusals.note(client_network(), g.door, is_unknown=isinstance(error, UnknownEndpoint))
    if times:
        took = context.request_ms()
        base = platform.settings.public_base_url
        log.warning(
            "webhook.refused", code=error.code, status=error.status, times=times, duration_ms=took, checked_for=base
        )
    g.told = True
    if isinstance(error, UnknownEndpoint):
        return problem(error.status, error.code, str(error))
    # Whoever set the webhook up sees at once that a proxy or PUBLIC_BASE_URL makes another URL of it than was signed.
    expected = platform.settings.public_base_url + _raw_target()
    return problem(
        error.status, error.code, f"{error}; it was checked as a request to {expected}", expected_url=expected
    )


def _platform() -> Platform:
    platform: Platform = current_app.extensions["platform"]
    return platform


def _look_up(provider: str, token: str, *, content_types: tuple[str, ...]) -> tuple[Platform, Endpoint, WebhookRequest]:
    """The endpoint and the request as it arrived; raises UnknownEndpoint, 413 and 415, and 400 for half a body.

    Raises _KeptUnread when the database is away and this process never knew the endpoint.
    """
    platform = _platform()
    context.bind(provider=provider)
    g.provider = provider
    g.door = f"{provider}/{token[: LONGEST_TOKEN + 1]}"
    if platform.refusals.is_surely_unknown(client_network(), g.door):
        raise UnknownEndpoint
    try:
        endpoint = platform.directory.endpoint(provider, token)
        context.bind(org_id=str(endpoint.org_id))
    except (DatabaseUnavailable, ConfigurationError):
        endpoint = None
    if content_types and request.mimetype not in content_types:
        raise UnsupportedContentType
    body = read_body(platform.settings.max_webhook_bytes)
    webhook = WebhookRequest(
        method=request.method,
        url=platform.settings.public_base_url + _raw_target(),
        headers=headers_of(request.environ),
        body=body,
    )
    if endpoint is None:
        platform.spool.keep_unproven(provider, token, webhook)
        raise _KeptUnread(provider, webhook)
    return platform, endpoint, webhook


def _raw_target() -> str:
    """Path and query exactly as they came, still escaped: that is what was signed, and Flask's own is not."""
    return raw_target(request.environ) or request.full_path


def _receive(provider: str, token: str, *, content_types: tuple[str, ...]) -> tuple[Platform, Endpoint, InboundEvent]:
    """Look up, verify, understand, and find whose it is."""
    platform, endpoint, webhook = _look_up(provider, token, content_types=content_types)
    try:
        event = verification.receive(platform, endpoint, webhook)
    except MalformedEvent as error:
        intake.keep_malformed(platform, endpoint, webhook.body, reason=str(error), request=webhook)
        raise
    try:
        endpoint, event = routing.route(platform, endpoint, event)
    except DatabaseUnavailable:
        platform.spool.keep_request(endpoint, webhook, remark=event.remark)
        raise _KeptUnread(provider, webhook) from None
    context.bind(org_id=str(endpoint.org_id))
    return platform, endpoint, event


def _json(body: object) -> Response:
    return Response(orjson.dumps(body), content_type=JSON)
