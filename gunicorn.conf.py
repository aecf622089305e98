"""How gunicorn serves the web process: ``gunicorn -c gunicorn.conf.py wsgi:app``.

Owns addresses, processes, threads, time limits and the access log. Knows nothing of the application.
An endpoint's token is as good as a password and a query string may carry a phone number, so the
access log has neither, and no address of whoever asked.
"""

from __future__ import annotations

import os
import re
import sys
from typing import Any

from gunicorn.glogging import Logger


def _number(name: str, default: int, least: int, most: int) -> int:
    """A whole number from the environment; a wrong one ends the start with one readable line."""
    value = os.environ.get(name) or str(default)
    if not value.isdecimal() or not least <= int(value) <= most:
        sys.stderr.write(f"Voicedesk does not start: {name} must be a number from {least} to {most}\n")
        raise SystemExit(78)  # EX_CONFIG
    return int(value)


def hide(uri: str) -> str:
    """A request's path without endpoint token and query string."""
    return re.sub(r"(/webhooks/[^/?]+/)[^/?]+", r"\1***", uri).partition("?")[0]


class DiscreetLogger(Logger):
    """gunicorn's logger, which would otherwise write whole request lines."""

    def atoms(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The fields of an access line, with the path made harmless."""
        fields: dict[str, Any] = super().atoms(*args, **kwargs)
        fields["U"] = hide(fields["U"] or "")
        return fields

    def exception(self, message: str, *args: Any, **kwargs: Any) -> None:
        """An error of a request: gunicorn gives its URI as an argument."""
        super().exception(message, *(hide(arg) if isinstance(arg, str) else arg for arg in args), **kwargs)


bind = f"{os.environ.get('BIND') or '127.0.0.1'}:{_number('PORT', 8000, 1, 65535)}"

worker_class = "gthread"
workers = _number("WEB_CONCURRENCY", 2, 1, 64)
threads = _number("WEB_THREADS", 16, 1, 256)

timeout = 30  # a process whose main loop is silent this long is replaced
graceful_timeout = 20  # as long as a caller may wait at most for a tool: a deploy cuts nobody off
keepalive = 75  # longer than a balancer's own, so that it is the balancer who closes
max_requests = 0  # a process that replaces itself under load loses more than a leak costs

logger_class = DiscreetLogger
accesslog = "-"
access_log_format = "%(m)s %(U)s %(s)s %(B)s bytes %(M)s ms"
errorlog = "-"
loglevel = "info"

control_socket_disable = True  # its default place is shared by all gunicorns of one user
