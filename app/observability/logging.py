"""Log lines with fields: JSON in production, readable in a terminal.

Owns the format of every line, also of those that libraries write: RQ, gunicorn, Alembic and the rest
pass through the same redaction and the same renderer. Nobody logs a person: only ids, types, codes and
durations are passed in, and an exception goes in as its class and its code (`describe`), because
messages of libraries carry parameters.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import traceback
from collections.abc import Iterable, Mapping, MutableMapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, cast

import orjson
import structlog

from app.config import Environment, Settings
from app.errors import VoicedeskError
from app.observability.redaction import redact_field

# A request id may look like a secret (nginx makes 32 hex digits); its form is checked where it comes in.
_AS_IT_IS = frozenset({"request_id", "timestamp", "level"})
_TRACEBACK = "Traceback (most recent call last)"
_QUIET = ("twilio", "googleapiclient", "urllib3", "httplib2", "google", "slack_sdk", "sentry_sdk")
_FRAMES = 6
SHORT = 64  # characters of a value that is worth being remembered as harmless

_lock = threading.Lock()


def _new_lock() -> None:
    global _lock
    _lock = threading.Lock()  # a thread of the parent may have held it, and lives here no more


os.register_at_fork(after_in_child=_new_lock)


def configure_logging(settings: Settings) -> None:
    """Set up structlog and the standard library's logging for this process; safe to call again."""
    as_json = settings.log_format == "json" or (
        settings.log_format == "auto" and (settings.environment is Environment.PRODUCTION or not sys.stderr.isatty())
    )
    renderer: Any = structlog.processors.JSONRenderer(_as_json) if as_json else structlog.dev.ConsoleRenderer()
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        redact_line,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _in_order,
    ]
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=_Lines,
        cache_logger_on_first_use=False,
    )
    foreign = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[_name_library, _name_exception, *shared],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
    )
    _take_over_libraries(foreign)


def _take_over_libraries(formatter: logging.Formatter) -> None:
    """One handler, at the root; whatever a library had put up for itself goes."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, _LibraryLines):
            root.removeHandler(handler)
    ours = _LibraryLines()
    ours.setFormatter(formatter)
    root.addHandler(ours)
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and name.startswith(("rq", "alembic", "werkzeug", "sqlalchemy", "flask")):
            logger.handlers.clear()
            logger.propagate = True
    logging.getLogger("alembic").setLevel(logging.INFO)  # which migration runs is news to whoever waits for it
    # These speak only when something is wrong, and then of what they sent: their lines are not ours to vouch for.
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.CRITICAL)


def library_formatter() -> logging.Formatter | None:
    """The formatter of other people's lines, for a handler that writes elsewhere; None before configuring."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _LibraryLines):
            return handler.formatter
    return None


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """The logger of a module; ``name`` becomes the field ``module``."""
    return cast(structlog.stdlib.BoundLogger, structlog.get_logger(module=name))


def describe(error: BaseException) -> dict[str, str]:
    """What may be said of an exception: its class, its code, and where it was raised; never its text.

    Our own exceptions have fixed sentences, which may be said too.
    """
    frames = frames_of(error)
    fields = {"error": type(error).__name__, "raised_at": frames[-1] if frames else ""}
    if isinstance(error, VoicedeskError):
        fields |= {"code": error.code, "reason": str(error)}
    return fields


def frames_of(error: BaseException) -> list[str]:
    """The innermost frames of an exception as ``file:line``, the innermost last; no source, no values."""
    frames = [f"{frame.f_code.co_filename.rsplit('/', 1)[-1]}:{line}" for frame, line in _walk(error)]
    return frames[-_FRAMES:]


def _walk(error: BaseException) -> Any:
    return traceback.walk_tb(error.__traceback__)


def redact_line(_logger: Any, _method: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A processor: mask what must not be said in every field of a line."""
    for name, value in fields.items():
        fields[name] = _sayable(name, value)
    return fields


def _sayable(name: str, value: Any) -> Any:
    """A field's value as it may stand in a line."""
    if name in _AS_IT_IS or name.startswith("_") or isinstance(value, int | float):
        return value
    return _redacted(name, value) if isinstance(value, str) and len(value) <= SHORT else redact_field(name, value)


@lru_cache(maxsize=4096)
def _redacted(name: str, value: str) -> Any:
    """The same ids, types and codes come again and again."""
    return redact_field(name, value)


def _in_order(_logger: Any, _method: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A processor: when, how loud and what come first."""
    first = {name: fields.pop(name) for name in ("timestamp", "level", "event") if name in fields}
    return {**first, **fields}


def _as_json(fields: Any, default: Any) -> str:
    """One line; what orjson refuses (half a surrogate pair, a number beyond 64 bits) the standard library writes."""
    try:
        return orjson.dumps(fields, default=default, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:
        return json.dumps(fields, default=default)


def tell_all(module: str, event: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """A line for each of many that came to the same at the same time, as ``info`` would write it, in one write."""
    *_, renderer = structlog.get_config()["processors"]
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    same = {**structlog.contextvars.get_contextvars(), "module": module}
    lines = []
    for row in rows:
        fields = {name: _sayable(name, value) for name, value in {**same, **row}.items()}
        lines.append(renderer(None, "info", {"timestamp": now, "level": "info", "event": event, **fields}))
    if lines:
        write_line(*lines)


def write_line(*lines: str) -> None:
    """Write finished lines to stderr; every line of this process, ours or a library's, passes here."""
    with _lock:
        sys.stderr.write("\n".join(lines) + "\n")
        sys.stderr.flush()


class _Lines:
    """Where structlog's lines end: one method for all levels."""

    def __init__(self, *_args: Any) -> None:
        pass

    def msg(self, line: str) -> None:
        write_line(line)

    debug = info = warning = warn = error = critical = fatal = exception = log = msg


class _LibraryLines(logging.Handler):
    """Where the lines of libraries end."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            write_line(self.format(record))
        except Exception:  # noqa: BLE001 - a line that cannot be formatted; logging's own way, which never raises
            write_line(f'{{"event": "log.unreadable", "module": "{record.name}", "level": "{record.levelname}"}}')


def _name_library(_logger: Any, _method: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A processor: which library speaks, and how loud."""
    record: logging.LogRecord = fields["_record"]
    fields["module"] = record.name
    fields["level"] = record.levelname.lower()
    return fields


def _name_exception(_logger: Any, _method: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A processor: of a traceback, given apart or written into the line, only what `describe` would say."""
    trouble = fields.pop("exc_info", None)
    fields.pop("stack_info", None)
    if isinstance(trouble, tuple) and trouble[1] is not None:
        fields.update(describe(trouble[1]))
    said, found, trace = str(fields["event"]).partition(_TRACEBACK)
    if found:
        last = trace.strip().rsplit("\n", 1)[-1]
        fields["event"] = said.strip()
        fields.setdefault("error", last.partition(":")[0].rsplit(".", 1)[-1][:80])
    return fields
