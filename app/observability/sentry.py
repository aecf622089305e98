"""Error reports to Sentry, when SENTRY_DSN is set; scrubbed of people and secrets before they leave.

Owns how the SDK is set up and what may be in a report: where it happened, the ids of the work, the
exception's class, and its sentence if it is one of ours (a library's carries parameters). Errors come
from `errors.report` alone; what the SDK's integrations find besides is dropped as a repetition.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast
from urllib.parse import urlsplit

import sentry_sdk
from sentry_sdk.integrations import Integration
from sentry_sdk.integrations.atexit import AtexitIntegration
from sentry_sdk.integrations.dedupe import DedupeIntegration
from sentry_sdk.integrations.flask import FlaskIntegration
from sentry_sdk.integrations.rq import RqIntegration
from sentry_sdk.scrubber import DEFAULT_DENYLIST, DEFAULT_PII_DENYLIST, EventScrubber
from sentry_sdk.transport import Transport

from app.config import Settings
from app.observability import context
from app.observability.redaction import HIDDEN_FIELDS, redact, redact_value

FLUSH_SECONDS = 2
WITHHELD = "[withheld: only our own exceptions have fixed sentences]"
_HEADERS = frozenset({"content-type", "content-length", "user-agent", "x-request-id"})
_BREADCRUMB = ("type", "category", "level", "timestamp")
_JOB = ("job_id", "func", "enqueued_at", "started_at")
_EVENT = (  # what a report may hold; whatever a next version of the SDK adds is left out
    "event_id",
    "timestamp",
    "start_timestamp",
    "level",
    "platform",
    "type",
    "logger",
    "environment",
    "release",
    "server_name",
    "sdk",
    "modules",
    "transaction",
    "transaction_info",
    "contexts",
    "exception",
    "threads",
    "breadcrumbs",
    "tags",
    "extra",
    "fingerprint",
    "request",
    "message",
    "logentry",
    "spans",
    "_meta",
    "measurements",
)
_CONTEXTS = ("trace", "runtime", "os")

Event = dict[str, Any]
Hint = dict[str, Any]


def configure_sentry(settings: Settings, *, transport: type[Transport] | Transport | None = None) -> bool:
    """Set up the SDK for this process if SENTRY_DSN is set; whether it is. Safe to call again.

    ``transport`` is how reports leave, for whoever wants to see them instead of sending them.
    """
    if not settings.sentry_dsn:
        return False
    sentry_sdk.init(
        dsn=settings.sentry_dsn,
        transport=transport,
        environment=settings.environment.value,
        release=settings.release,
        max_request_body_size="never",
        include_local_variables=False,
        event_scrubber=EventScrubber(
            denylist=[*DEFAULT_DENYLIST, *HIDDEN_FIELDS],
            pii_denylist=[*DEFAULT_PII_DENYLIST, *HIDDEN_FIELDS],
            recursive=True,
        ),
        before_send=cast(Any, scrub),
        before_send_transaction=cast(Any, scrub),
        before_breadcrumb=cast(Any, scrub_breadcrumb),
        default_integrations=False,  # among them: every log line as a breadcrumb, sys.argv, requests' URLs
        auto_enabling_integrations=False,
        integrations=_integrations(),
        shutdown_timeout=FLUSH_SECONDS,
        traces_sample_rate=None,
    )
    return True


def _integrations() -> list[Integration]:
    quiet: Callable[[int, float], None] = lambda _pending, _timeout: None  # noqa: E731 - no words at a process's end
    return [FlaskIntegration(), RqIntegration(), DedupeIntegration(), AtexitIntegration(callback=quiet)]


def send(error: BaseException, *, kind: str, where: str) -> str | None:
    """Hand an exception to the SDK's own thread; its event id, or None when Sentry is not configured."""
    if not sentry_sdk.is_initialized():
        return None
    with sentry_sdk.new_scope() as scope:
        scope.set_tag("kind", kind)
        scope.set_tag("where", where)
        return sentry_sdk.capture_exception(error)


def flush(seconds: float = FLUSH_SECONDS) -> None:
    """Wait, at most that long, until what was handed over has left; for a process that is about to end."""
    if sentry_sdk.is_initialized():
        sentry_sdk.flush(timeout=seconds)


def scrub(event: Event, _hint: Hint) -> Event | None:
    """The report without people and secrets, with the ids of the work as its tags."""
    kept = {name: event[name] for name in _EVENT if name in event}
    kept["tags"] = {**redact_value(dict(kept.get("tags") or {})), **{k: str(v) for k, v in context.ids().items()}}
    kept["extra"] = _job_alone(kept.get("extra") or {})
    kept["contexts"] = {name: kept.get("contexts", {})[name] for name in _CONTEXTS if name in kept.get("contexts", {})}
    trace = kept["contexts"].get("trace")
    if trace:
        trace.pop("data", None)
        trace["description"] = redact(str(trace.get("description") or ""))
    for value in _values(kept.get("exception")):
        _silence(value)
    for place in ("message", "transaction"):
        if kept.get(place):
            kept[place] = redact(kept[place])
    if kept.get("logentry"):
        kept["logentry"] = {"message": redact(str(kept["logentry"].get("message") or ""))}
    if kept.get("request"):
        kept["request"] = _harmless_request(kept["request"])
    if kept.get("breadcrumbs"):
        crumbs = [scrub_breadcrumb(crumb, {}) for crumb in _values(kept["breadcrumbs"])]
        kept["breadcrumbs"] = {"values": crumbs}
    for span in kept.get("spans") or []:
        span.pop("data", None)
        span["description"] = redact(str(span.get("description") or ""))
    return kept


def scrub_breadcrumb(crumb: Event, _hint: Hint) -> Event | None:
    """A breadcrumb without words: what kind of thing happened, and when."""
    return {name: crumb[name] for name in _BREADCRUMB if name in crumb}


def _values(interface: Any) -> list[Event]:
    """The list in one of Sentry's interfaces, in either of its two forms."""
    found = interface.get("values") if isinstance(interface, dict) else interface
    return [value for value in found or [] if isinstance(value, dict)]


def _silence(value: Event) -> None:
    """An exception keeps its text only if it is one of ours; frames keep place and source, never values."""
    ours = str(value.get("module") or "").startswith("app.")
    value["value"] = redact(str(value.get("value") or "")) if ours else WITHHELD
    value.pop("raw_stacktrace", None)
    mechanism = value.get("mechanism")
    if isinstance(mechanism, dict):
        mechanism.pop("data", None)
    for frame in (value.get("stacktrace") or {}).get("frames") or []:
        frame.pop("vars", None)


def _harmless_request(request: Event) -> Event:
    """Method, path without its endpoint token, and headers that say nothing of a person."""
    headers = request.get("headers") or {}
    parts = urlsplit(str(request.get("url") or ""))
    return {
        "method": request.get("method"),
        "url": redact(f"{parts.scheme}://{parts.netloc}{parts.path}"),
        "headers": {name: redact(str(value)) for name, value in headers.items() if name.lower() in _HEADERS},
    }


def _job_alone(extra: Event) -> Event:
    """RQ's description repeats a job's arguments; who and when is enough."""
    job = extra.get("rq-job")
    return {"rq-job": {name: job[name] for name in _JOB if name in job}} if isinstance(job, dict) else {}
