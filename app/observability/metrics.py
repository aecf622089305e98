"""What is counted and timed, for Prometheus: every metric that a process keeps itself.

Owns names, labels and buckets. Labels come from short lists in the house: whatever else arrives is
``other``, so that nobody can make a series by sending something new. Must never see an organization, a
token, a number or a text. What is read from the database at a scrape is in ``services/measurements.py``.

With METRICS_DIR the processes of this machine count together (``counting.py``); without it each alone.
That is decided when this module is imported, because the library decides it when a metric is made.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from functools import cache
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Histogram, Metric, disable_created_metrics

from app import errors
from app.config import metrics_folder
from app.errors import VoicedeskError
from app.observability.counting import Folder

OTHER = "other"
PROVIDERS = {"vapi", "twilio", "google-calendar", "voicedesk"}  # and the front doors: `know_provider`
HANDLED = {  # what can die here: the rest is skipped, whatever it says
    "vapi": ("status-update", "end-of-call-report", "tool-calls", "malformed"),
    "twilio": ("message.inbound", "message.status", "malformed"),
    "google-calendar": ("calendar.sync", "calendar.changed", "malformed"),
    "voicedesk": (
        *("message.send", "message.check", "appointment.finish", "appointment.remind"),
        *("calendar.sync", "calendar.watch", "canary", "event.forward", "event.erase"),
    ),
}
TYPES = frozenset(
    {
        *(event_type for types in HANDLED.values() for event_type in types),
        # what is stored and skipped: Vapi's, as its documentation lists them, and Twilio's other channels
        *("assistant-request", "tool-calls", "transfer-destination-request", "handoff-destination-request"),
        *("knowledge-base-request", "voice-request", "conversation-update", "transcript", "speech-update", "hang"),
        *("model-output", "phone-call-control", "transfer-update", "user-interrupted", "language-change-detected"),
        *("voice-input", "assistant.started", "message.other"),
    }
)
DAYS_AHEAD = frozenset({"appointment.remind"})  # planned for a day to come: how long it waited says nothing
ENDINGS = ("processed", "skipped", "dead")
OUTCOMES = frozenset({*ENDINGS, "retry", "waiting", "lost"})
CIRCUITS = frozenset(
    {"twilio_sms", "twilio_whatsapp", "google_calendar_freebusy", "google_calendar_events", "vapi", "slack", "forward"}
)
WHERE = frozenset({"web", "delivery", "job", "scheduler", "cli", "thread"})
ANSWERS = frozenset({"tool-calls", "assistant-request", "transfer-destination-request"})
HTTP_CODES = frozenset(
    {"request_entity_too_large", "method_not_allowed", "bad_request", "internal", "length_required", "not_found"}
)
CODES = HTTP_CODES | frozenset(
    one.code for one in vars(errors).values() if isinstance(one, type) and issubclass(one, VoicedeskError)
)

FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
PATIENT = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600, 86_400)

disable_created_metrics()  # type: ignore[no-untyped-call]
shared: Folder | None = None
fault: str | None = None  # why METRICS_DIR cannot be used; an event is worth more than its count, so all goes on
_path = metrics_folder()
if _path:
    try:
        shared = Folder(Path(_path))
        shared.join()
    except OSError as error:
        shared, fault = None, error.strerror
registry = CollectorRegistry()


def _counter(name: str, meaning: str, *labels: str) -> Counter:
    return Counter(name, meaning, labels, namespace="voicedesk", registry=registry)


def _histogram(name: str, meaning: str, *labels: str, buckets: tuple[float, ...] = FAST) -> Histogram:
    return Histogram(name, meaning, labels, namespace="voicedesk", registry=registry, buckets=buckets)


_accepted = _counter("webhooks_accepted", "Webhooks stored for the first time", "provider", "type")
_duplicate = _counter("webhooks_duplicate", "Webhooks that had been stored before", "provider")
_refused = _counter("webhooks_refused", "Webhooks answered with an error", "provider", "code")
_spooled = _counter("webhooks_spooled", "Webhooks put into the spool on this host's disk", "provider")
_unspooled = _counter("webhooks_unspooled", "Webhooks taken out of the spool", "provider", "outcome")
_not_spooled = _counter("webhooks_not_spooled", "Webhooks that neither database nor spool took", "provider")
_ended = _counter("deliveries_ended", "Deliveries that came to their end", "provider", "type", "outcome")
_attempts = _counter("delivery_attempts", "Attempts at deliveries that ended", "outcome")
_delivery = _histogram(
    "delivery_seconds", "From being stored to being processed or skipped", "provider", buckets=PATIENT
)
_handler = _histogram("handler_seconds", "What the handler of one attempt took", "provider", "type")
_request = _histogram("request_seconds", "Requests, from first to last line of ours", "route", "status")
_answer = _histogram("answer_seconds", "What a caller waited for an answer", "type")
_degraded = _counter("answers_degraded", "Answers to callers that were not the wished-for ones", "reason")
_outbound = _histogram(
    "outbound_seconds", "Calls to providers, with those an open circuit refused", "circuit", "outcome"
)
_unproven = _counter(
    "verification_failures", "Webhooks without proof that were taken or kept all the same", "provider", "mode"
)
_reconciled = _counter("reconciled", "Events that never arrived, filled in from the provider", "provider")
_errors = _counter("errors", "Errors reported", "where")
_limited = _counter("quota_refusals", "API requests refused with 429", "quota")

DEGRADED = ("deadline", "failed", "not_recorded", "no_database")
MODES = ("shadow", "quarantine")
UNSPOOLED = ("stored", "duplicate", "refused", "aside")
QUOTAS = ("organization", "address")


def know_provider(provider: str) -> None:
    """One more provider, of which any type of event is ``other``; its counts begin at zero, as those of all do."""
    PROVIDERS.add(provider)
    for event_type in ("malformed", OTHER):
        _count(_ended, provider, event_type, "dead")
    _begin_counts(provider)


def webhook_stored(provider: str, event_type: str, status: str, *, duplicate: bool) -> None:
    """A webhook is committed; ``status`` is what it was stored as, which may be an end already."""
    provider = _listed(provider, PROVIDERS)
    if duplicate:
        _count(_duplicate, provider).inc()
        return
    event_type = _listed(event_type, TYPES)
    _count(_accepted, provider, event_type).inc()
    if status in ENDINGS:
        _count(_ended, provider, event_type, status).inc()


def webhook_spooled(provider: str) -> None:
    """A webhook is on this host's disk."""
    _count(_spooled, _listed(provider, PROVIDERS)).inc()


def webhook_unspooled(provider: str, outcome: str) -> None:
    """A webhook is out of the spool: one of UNSPOOLED."""
    _count(_unspooled, _listed(provider, PROVIDERS), _listed(outcome, frozenset(UNSPOOLED))).inc()


def spool_refused(provider: str) -> None:
    """Neither the database nor the spool took a webhook."""
    _count(_not_spooled, _listed(provider, PROVIDERS)).inc()


def webhook_refused(provider: str, code: str) -> None:
    """A webhook was answered with something else than 2xx."""
    _count(_refused, _listed(provider, PROVIDERS), _listed(code, CODES)).inc()


def verification_failed(provider: str, mode: str) -> None:
    """A webhook's proof did not hold where that is not simply the end of it: one of MODES."""
    _count(_unproven, _listed(provider, PROVIDERS), _listed(mode, frozenset(MODES))).inc()


def attempt_ended(provider: str, event_type: str, outcome: str, *, handler_seconds: float | None = None) -> None:
    """One attempt is over; ``handler_seconds`` None when no handler ran, or its process died in it."""
    _count(_attempts, _listed(outcome, OUTCOMES)).inc()
    if handler_seconds is not None:
        _time(_handler, _listed(provider, PROVIDERS), _listed(event_type, TYPES)).observe(handler_seconds)


def delivery_ended(provider: str, event_type: str, status: str, *, seconds: float) -> None:
    """A delivery is processed, skipped or dead, ``seconds`` after it was stored."""
    provider = _listed(provider, PROVIDERS)
    _count(_ended, provider, _listed(event_type, TYPES), _listed(status, frozenset(ENDINGS))).inc()
    if status != "dead" and event_type not in DAYS_AHEAD:
        _time(_delivery, provider).observe(max(0.0, seconds))  # two clocks: the database's began it


def request_ended(route: str, status: int, seconds: float) -> None:
    """A request was answered; ``route`` is the rule that matched, never the path."""
    _time(_request, route, f"{status // 100}xx").observe(seconds)


def answer_given(event_type: str, seconds: float) -> None:
    """A caller has heard something."""
    _time(_answer, _listed(event_type, ANSWERS)).observe(seconds)


def answer_degraded(reason: str) -> None:
    """What a caller heard was the second best: one of DEGRADED."""
    _count(_degraded, _listed(reason, frozenset(DEGRADED))).inc()


def outbound_ended(circuit: str, error: BaseException | None, seconds: float) -> None:
    """A call to a provider returned or raised; by the class's code, because an instance may have any.

    A circuit that is not listed is a trial's, and no provider was called.
    """
    circuit = circuit.partition(":")[0]  # a target's circuit has the target behind its name
    if circuit not in CIRCUITS:
        return
    outcome = "ok" if error is None else type(error).code if isinstance(error, VoicedeskError) else "bug"
    _time(_outbound, circuit, outcome if outcome in {"ok", "bug"} else _listed(outcome, CODES)).observe(seconds)


def reconciled(provider: str) -> None:
    """Something that the provider never told was taken in; of a calendar, a sync that was missed."""
    _count(_reconciled, _listed(provider, PROVIDERS)).inc()


def error_reported(where: str) -> None:
    """An error was reported; ``where`` may say more after a colon."""
    _count(_errors, _listed(where.partition(":")[0], WHERE)).inc()


def quota_refused(quota: str) -> None:
    """The API answered 429: one of QUOTAS."""
    _count(_limited, _listed(quota, frozenset(QUOTAS))).inc()


def collect() -> Iterable[Metric]:
    """What has been counted: by all processes of this machine, or by this one. Raises counting.FolderBusy."""
    return shared.read() if shared else registry.collect()


def declared() -> dict[str, tuple[str, ...]]:
    """Each metric above by the name Prometheus knows it by (histograms without suffix), with its labels."""
    found: dict[str, tuple[str, ...]] = {}
    for metric in registry._collector_to_names:
        assert isinstance(metric, Counter | Histogram)
        name = metric._name + ("_total" if isinstance(metric, Counter) else "")
        found[name] = tuple(metric._labelnames)
    return found


def _listed(value: str, listed: Set[str]) -> str:
    return value if value in listed else OTHER


@cache
def _count(metric: Counter, *labels: str) -> Counter:
    """The series, looked up once: the library's own look-up costs more than the count."""
    return metric.labels(*labels)


@cache
def _time(metric: Histogram, *labels: str) -> Histogram:
    return metric.labels(*labels)


def _begin_counts(provider: str) -> None:
    """What alerts ask about begins at zero: Prometheus sees no increase in a first value."""
    _count(_duplicate, provider)
    _count(_reconciled, provider)
    for mode in MODES:
        _count(_unproven, provider, mode)
    if provider != "voicedesk":
        for code in ("internal", "database_unavailable"):
            _count(_refused, provider, code)
        _count(_spooled, provider)
        _count(_not_spooled, provider)
        for outcome in UNSPOOLED:
            _count(_unspooled, provider, outcome)


for _provider in PROVIDERS:
    _begin_counts(_provider)
for _provider, _types in HANDLED.items():
    for _type in _types:
        _count(_ended, _provider, _type, "dead")
for _outcome in OUTCOMES:
    _count(_attempts, _outcome)
for _where in WHERE:
    _count(_errors, _where)
for _reason in DEGRADED:
    _count(_degraded, _reason)
for _quota in QUOTAS:
    _count(_limited, _quota)
