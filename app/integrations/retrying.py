"""Trying again while somebody waits: a few times, soon, and never what may already have been done.

Owns the short retries around a breaker (each try counts there as one). The long ones, minutes and
hours, are dates in a delivery's row; must not be used to wait for those.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception

from app.errors import (
    CircuitOpen,
    CredentialsRefused,
    DeadlineExceeded,
    ProviderThrottled,
    ProviderUnavailable,
    TemporaryFailure,
)
from app.integrations.deadline import Deadline

DELAYS_SECONDS = (1.0, 2.0, 4.0)
JITTER = 0.2  # so that those who failed together do not come back together
LEAST_TRY_SECONDS = 0.8  # a retry that would have less than this after its delay is not worth the silence
LONGEST_DELAY_SECONDS = 10.0  # a provider that asks for more is tried again by the delivery's row, not by a thread

T = TypeVar("T")


def with_retries(
    call: Callable[[], T],
    *,
    deadline: Deadline,
    delays: Sequence[float] = DELAYS_SECONDS,
    idempotent: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """Return what ``call`` returns, trying again after each of ``delays`` (seconds, ±20 %) while it may help.

    A failure that may have had an effect is tried again only when the call is ``idempotent``. A
    provider's Retry-After is honoured when it fits. Whatever ends the tries (a permanent failure, an
    open circuit, too little time) is raised as it came from the last one.
    """

    def worth_it(error: BaseException) -> bool:
        return _may_repeat(error, idempotent=idempotent)

    def wait(state: RetryCallState) -> float:
        # After the last delay is used up `enough` ends it; the index must only not fall off the end.
        base = delays[min(state.attempt_number, len(delays)) - 1] if delays else 0.0
        return max(base * random.uniform(1 - JITTER, 1 + JITTER), _wished(state))  # noqa: S311 - no secret

    def enough(state: RetryCallState) -> bool:
        return (
            state.attempt_number > len(delays)
            or state.upcoming_sleep > LONGEST_DELAY_SECONDS
            or not deadline.fits(state.upcoming_sleep + LEAST_TRY_SECONDS)
        )

    return Retrying(retry=retry_if_exception(worth_it), wait=wait, stop=enough, sleep=sleep, reraise=True)(call)


def _may_repeat(error: BaseException, *, idempotent: bool) -> bool:
    if not isinstance(error, TemporaryFailure) or isinstance(error, CircuitOpen | CredentialsRefused):
        return False
    return idempotent or _had_no_effect(error)


def _had_no_effect(error: TemporaryFailure) -> bool:
    """Certainly none: a temporary failure that does not say so may have had one."""
    if isinstance(error, ProviderUnavailable | DeadlineExceeded):
        return not error.maybe_done
    return isinstance(error, ProviderThrottled)


def _wished(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    wish = error.retry_after if isinstance(error, TemporaryFailure) else None
    return wish.total_seconds() if wish else 0.0
