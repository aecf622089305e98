"""Deadlines, and what is tried again within them."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import timedelta

import pytest

from app.errors import (
    CircuitOpen,
    CredentialsRefused,
    DatabaseUnavailable,
    DeadlineExceeded,
    ProviderRefused,
    ProviderThrottled,
    ProviderUnavailable,
    TemporaryFailure,
)
from app.integrations.deadline import NO_DEADLINE, Deadline
from app.integrations.retrying import with_retries

NOTHING_SENT = ProviderUnavailable(maybe_done=False)


class Script:
    """A call that ends as written, one line after the other, the last one again and again."""

    def __init__(self, *lines: BaseException | str) -> None:
        self.lines = lines
        self.calls = 0

    def __call__(self) -> str:
        line = self.lines[min(self.calls, len(self.lines) - 1)]
        self.calls += 1
        if isinstance(line, BaseException):
            raise line
        return line


@pytest.fixture
def slept() -> list[float]:
    """The pauses that were made."""
    return []


@pytest.fixture
def sleep(slept: list[float]) -> Callable[[float], None]:
    """Sleeps no time at all."""
    return slept.append


def test_what_had_no_effect_is_tried_again_after_one_two_and_four_seconds_with_jitter(
    slept: list[float], sleep: Callable[[float], None]
) -> None:
    call = Script(NOTHING_SENT, NOTHING_SENT, NOTHING_SENT, "fine")
    assert with_retries(call, deadline=NO_DEADLINE, sleep=sleep) == "fine"
    assert len(slept) == 3
    for pause, delay in zip(slept, (1, 2, 4), strict=True):
        assert 0.8 * delay <= pause <= 1.2 * delay


def test_jitter_differs_from_time_to_time(slept: list[float], sleep: Callable[[float], None]) -> None:
    for _ in range(20):
        with_retries(Script(NOTHING_SENT, "fine"), deadline=NO_DEADLINE, sleep=sleep)
    assert len(set(slept)) > 10


def test_the_last_failure_comes_out_as_it_was(sleep: Callable[[float], None]) -> None:
    last = ProviderUnavailable("the last", maybe_done=False)
    call = Script(NOTHING_SENT, NOTHING_SENT, NOTHING_SENT, last)
    with pytest.raises(ProviderUnavailable) as failure:
        with_retries(call, deadline=NO_DEADLINE, sleep=sleep)
    assert failure.value is last
    assert call.calls == 4


@pytest.mark.parametrize(
    "error",
    [ProviderUnavailable(), DeadlineExceeded(), DatabaseUnavailable(), TemporaryFailure()],
    ids=lambda error: type(error).__name__,
)
def test_what_may_have_been_done_is_repeated_only_when_it_is_idempotent(
    error: TemporaryFailure, sleep: Callable[[float], None]
) -> None:
    once = Script(error, "fine")
    with pytest.raises(type(error)):
        with_retries(once, deadline=NO_DEADLINE, sleep=sleep)
    assert once.calls == 1
    assert with_retries(Script(error, "fine"), deadline=NO_DEADLINE, idempotent=True, sleep=sleep) == "fine"


@pytest.mark.parametrize(
    "error",
    [ProviderRefused(), CredentialsRefused(), CircuitOpen("vapi", retry_after=timedelta(seconds=0.1)), KeyError()],
    ids=lambda error: type(error).__name__,
)
def test_refusals_open_circuits_and_surprises_end_it_at_once(
    error: Exception, slept: list[float], sleep: Callable[[float], None]
) -> None:
    call = Script(error, "fine")
    with pytest.raises(type(error)):
        with_retries(call, deadline=NO_DEADLINE, idempotent=True, sleep=sleep)
    assert (call.calls, slept) == (1, [])


def test_a_circuit_that_opens_between_tries_ends_them(sleep: Callable[[float], None]) -> None:
    call = Script(NOTHING_SENT, CircuitOpen("vapi", retry_after=timedelta(seconds=30)))
    with pytest.raises(CircuitOpen):
        with_retries(call, deadline=NO_DEADLINE, sleep=sleep)
    assert call.calls == 2


def test_a_wish_to_come_back_later_is_honoured(slept: list[float], sleep: Callable[[float], None]) -> None:
    call = Script(ProviderThrottled(retry_after=timedelta(seconds=6)), "fine")
    assert with_retries(call, deadline=NO_DEADLINE, sleep=sleep) == "fine"
    assert slept == [6]


@pytest.mark.parametrize(("seconds", "deadline"), [(6.0, Deadline(5)), (3600.0, NO_DEADLINE)])
def test_a_wish_that_does_not_fit_ends_the_tries(
    seconds: float, deadline: Deadline, slept: list[float], sleep: Callable[[float], None]
) -> None:
    call = Script(ProviderThrottled(retry_after=timedelta(seconds=seconds)), "fine")
    with pytest.raises(ProviderThrottled):
        with_retries(call, deadline=deadline, sleep=sleep)
    assert (call.calls, slept) == (1, [])


def test_a_retry_needs_its_pause_and_eight_tenths_of_a_second(sleep: Callable[[float], None]) -> None:
    too_short, enough = Script(NOTHING_SENT, "fine"), Script(NOTHING_SENT, "fine")
    with pytest.raises(ProviderUnavailable):
        with_retries(too_short, deadline=Deadline(1.59), sleep=sleep)
    assert with_retries(enough, deadline=Deadline(2.1), sleep=sleep) == "fine"


def test_without_delays_there_is_one_try(sleep: Callable[[float], None]) -> None:
    call = Script(NOTHING_SENT, "fine")
    with pytest.raises(ProviderUnavailable):
        with_retries(call, deadline=NO_DEADLINE, delays=(), sleep=sleep)
    assert call.calls == 1


def test_a_deadline_runs_down_and_never_below_nothing() -> None:
    assert 4.9 < Deadline.within(5).remaining() <= 5
    over = Deadline(-1)
    assert over.expired
    assert over.remaining() == 0


def test_a_try_may_take_its_cap_or_what_is_left_less_the_reserve() -> None:
    assert Deadline(60).try_timeout(2) == 2
    assert Deadline(1.5).try_timeout(2) == pytest.approx(0.9, abs=0.05)
    assert NO_DEADLINE.try_timeout(10) == 10
    assert NO_DEADLINE.remaining() == math.inf


def test_a_try_for_which_no_time_is_left_is_not_begun() -> None:
    with pytest.raises(DeadlineExceeded) as failure:
        Deadline(0.6).try_timeout(2)
    assert failure.value.maybe_done is False
