"""Log lines with fields: JSON in production, readable in a terminal.

Owns the format of every line. Nobody logs a person: only ids, types, codes and durations are passed
in, and an exception goes in as its class and its code (`describe`), because messages of libraries
carry parameters.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, cast

import structlog

from app.config import Environment, Settings
from app.errors import VoicedeskError


def configure_logging(settings: Settings) -> None:
    """Set up structlog and the standard library's logging for this process; safe to call again."""
    as_json = settings.log_format == "json" or (
        settings.log_format == "auto" and (settings.environment is Environment.PRODUCTION or not sys.stderr.isatty())
    )
    renderer: Any = structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    # Libraries speak only when something is wrong: their lines are not ours to vouch for.
    for name in ("twilio", "googleapiclient", "urllib3", "httplib2", "google", "slack_sdk"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """The logger of a module; ``name`` becomes the field ``module``."""
    return cast(structlog.stdlib.BoundLogger, structlog.get_logger(module=name))


def describe(error: BaseException) -> dict[str, str]:
    """What may be said of an exception: its class, its code, and where it was raised; never its text.

    Our own exceptions have fixed sentences, which may be said too.
    """
    place = ""
    trace = error.__traceback__
    while trace is not None:
        place = f"{trace.tb_frame.f_code.co_filename.rsplit('/', 1)[-1]}:{trace.tb_lineno}"
        trace = trace.tb_next
    fields = {"error": type(error).__name__, "raised_at": place}
    if isinstance(error, VoicedeskError):
        fields |= {"code": error.code, "reason": str(error)}
    return fields
