"""The ids that every line of a piece of work carries: request, delivery, organization, attempt, circuit.

Owns how they are bound, how they come into another thread, and the form of a request id. Holds ids,
types and times only: whatever is bound here ends in every log line and in Sentry's tags.
"""

from __future__ import annotations

import contextvars
import random
import re
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, ParamSpec, TypeVar

from structlog.contextvars import bind_contextvars, bound_contextvars, clear_contextvars, get_contextvars

IDS = ("request_id", "delivery_id", "org_id", "attempt", "circuit", "provider")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")

P = ParamSpec("P")
T = TypeVar("T")

_began: contextvars.ContextVar[float | None] = contextvars.ContextVar("request_began", default=None)


def begin_request(given_id: str | None) -> str:
    """Bind the id of a request, and remember when it began; returns the id.

    ``given_id`` is what the client sent: it is kept if it has the form of an id, otherwise one is made.
    """
    end_request()  # whatever a request of before left on this thread
    request_id = request_id_of(given_id)
    bind_contextvars(request_id=request_id)
    _began.set(time.monotonic())
    return request_id


def request_id_of(given_id: str | None) -> str:
    """The id the client sent, if it has the form of one, otherwise a new one: unlike any other, and no secret."""
    return given_id if given_id and _REQUEST_ID.fullmatch(given_id) else f"req-{random.getrandbits(64):016x}"


def end_request() -> None:
    """Forget everything that was bound here."""
    clear_contextvars()
    _began.set(None)


def request_ms() -> int | None:
    """Milliseconds since this request began; None outside of one."""
    began = _began.get()
    return None if began is None else round((time.monotonic() - began) * 1000)


def bind(**ids: Any) -> None:
    """Add ids until the request ends."""
    bind_contextvars(**ids)


def bound(**ids: Any) -> AbstractContextManager[None]:
    """Add ids for a ``with`` block."""
    return bound_contextvars(**ids)


def ids() -> dict[str, Any]:
    """What is bound just now, of the ids that everybody knows."""
    found = get_contextvars()
    return {name: found[name] for name in IDS if found.get(name) is not None}


def carry(function: Callable[P, T]) -> Callable[P, T]:
    """The same function, which knows in whatever thread it runs the ids that are bound here and now."""
    context = contextvars.copy_context()

    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        return context.run(function, *args, **kwargs)

    return run
