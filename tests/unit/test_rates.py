"""The buckets at a provider's door: never more in any second than allowed, in Redis and without it."""

from __future__ import annotations

import time

import pytest

from app.integrations.rates import Rates
from app.redis import RedisLink
from tests.eventually import eventually

FAST = 20.0  # a second, so that a test sees several windows


@pytest.fixture(params=["redis", "alone"])
def join(request, valkey):
    """Make the buckets of a process: two share them through Redis; without it each has its own."""
    made = [Rates(RedisLink(valkey.url if request.param == "redis" else None))]
    account = f"account-{time.monotonic_ns()}"

    def another() -> Rates:
        if request.param == "redis":
            made.append(Rates(RedisLink(valkey.url)))
        return made[-1]

    another.account = account
    return another


def test_as_many_as_allowed_go_at_once_and_the_others_have_turns_of_their_own(join):
    first, second = join(), join()
    waits = [rates.take(join.account, 3, holder=f"h{n}") for n, rates in enumerate([first, second] * 4)]
    assert [wait for wait in waits if wait == 0] == [0, 0, 0]
    late = waits[3:]
    assert 0.8 < late[0] <= 1.02
    assert all(0.22 < later - sooner < 0.32 for sooner, later in zip(late, late[1:], strict=False))


def test_in_no_second_are_more_calls_than_allowed_however_often_one_asks(join):
    rates = join()
    went = []
    began = time.monotonic()
    while time.monotonic() - began < 1.5:
        if not rates.take(join.account, FAST, holder=f"h{len(went)}"):
            went.append(time.monotonic())
        time.sleep(0.002)
    assert len(went) >= FAST
    assert all(later - sooner > 1.0 for sooner, later in zip(went, went[int(FAST) :], strict=False))


def test_the_window_of_a_call_begins_when_it_is_made_and_not_when_its_token_was_taken(join):
    rates = join()
    assert rates.take(join.account, 2, holder="slow") == 0
    assert rates.take(join.account, 2, holder="quick") == 0
    time.sleep(0.3)
    for holder in ("slow", "quick"):
        assert rates.begin(join.account, 2, holder=holder, seconds=5)
    assert rates.take(join.account, 2, holder="next") > 0.9
    for holder in ("slow", "quick"):
        rates.end(join.account, 2, holder=holder)
    assert rates.take(join.account, 2, holder="next") > 0.9


def test_a_call_that_lasts_longer_than_the_window_has_its_token_until_a_window_after_its_end(join):
    rates = join()
    assert rates.take(join.account, FAST, holder="slow") == 0
    assert rates.begin(join.account, FAST, holder="slow", seconds=5)
    time.sleep(1.05)
    others = [rates.take(join.account, FAST, holder=f"o{number}") for number in range(int(FAST))]
    assert [wait for wait in others if wait == 0] == [0] * (int(FAST) - 1)
    rates.end(join.account, FAST, holder="slow")
    assert rates.take(join.account, FAST, holder="next") > 0.5


def test_what_a_process_that_died_had_under_way_counts_no_longer_than_a_call_may_take(join):
    rates = join()
    assert rates.take(join.account, 1, holder="dead") == 0
    assert rates.begin(join.account, 1, holder="dead", seconds=1.3)
    time.sleep(1.1)
    assert rates.take(join.account, 1, holder="next") > 0
    time.sleep(0.3)
    assert rates.take(join.account, 1, holder="next") == 0


def test_whoever_was_held_up_until_others_had_the_token_is_told_before_the_call(valkey):
    rates = Rates(RedisLink(valkey.url))
    assert rates.take("held up", FAST, holder="late") == 0
    time.sleep(1.05)
    assert all(rates.take("held up", FAST, holder=f"o{number}") == 0 for number in range(int(FAST)))
    assert not rates.begin("held up", FAST, holder="late", seconds=5)
    assert rates.take("held up", FAST, holder="late") > 0


def test_for_a_window_after_redis_went_away_nobody_goes_who_can_wait(own_valkey):
    rates = Rates(RedisLink(own_valkey.url))
    assert rates.take("left alone", 5, holder="a") == 0
    own_valkey.kill()
    assert 0.8 < rates.take("left alone", 5, holder="b") < 1.03
    assert rates.take("left alone", 5, holder="caller", pressing=True) == 0
    eventually(lambda: rates.take("left alone", 5, holder="b") == 0, seconds=5)


def test_whoever_presses_is_never_refused_and_the_others_wait_for_that_token(join):
    rates = join()
    assert rates.take(join.account, 1, holder="a", pressing=True) == 0
    assert rates.take(join.account, 1, holder="b", pressing=True) == 0
    assert rates.take(join.account, 1, holder="c") > 0.9


def test_after_a_429_nobody_goes_for_as_long_as_was_asked_for(join):
    rates, other = join(), join()
    rates.hold_back(join.account, 5.0)
    assert 4.5 < other.take(join.account, 10, holder="a") <= 5.0
    assert other.take(f"{join.account}-2", 10, holder="a") == 0


def test_a_rate_below_one_a_second_is_a_longer_window(join):
    rates = join()
    assert rates.take(join.account, 0.5, holder="a") == 0
    assert 1.9 < rates.take(join.account, 0.5, holder="b") < 2.2


def test_a_clock_of_redis_that_was_set_back_holds_nobody_up(valkey):
    link = RedisLink(valkey.url)
    rates = Rates(link)
    assert rates.take("stepped", 1, holder="a") == 0
    (key,) = link.use(
        lambda client: [name for name in client.keys("voicedesk:rate:*:taken") if client.zscore(name, "a") is not None][
            -1:
        ]
    )
    link.use(lambda client: client.zadd(key, {"a": (time.time() + 3600) * 1000}))
    assert rates.take("stepped", 1, holder="b") == 0
