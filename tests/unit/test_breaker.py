"""The circuit breakers: the same rules alone and over a real Redis, between registries, threads and forks."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from app.errors import (
    CircuitOpen,
    ConfigurationError,
    CredentialsRefused,
    DeadlineExceeded,
    ProviderRefused,
    ProviderThrottled,
    ProviderUnavailable,
)
from app.integrations.breaker import CIRCUITS, SLACK, VAPI, Circuits, protected
from app.redis import RedisLink
from sandbox.valkey import EmbeddedValkey

OPEN_SECONDS = 0.3
Joining = Callable[[], Circuits]


def _forget(url: str) -> None:
    client = redis.Redis.from_url(url)
    for key in client.scan_iter("voicedesk:circuit:*"):
        client.delete(key)
    client.close()


def _joining(url: str | None, made: list[Circuits], open_seconds: float = OPEN_SECONDS) -> Joining:
    def join() -> Circuits:
        registry = Circuits()
        registry.connect(RedisLink(url), open_seconds)
        made.append(registry)
        return registry

    return join


@pytest.fixture
def join(valkey: EmbeddedValkey) -> Iterator[Joining]:
    """Make registries as if in several processes, joined by Redis."""
    made: list[Circuits] = []
    _forget(valkey.url)
    yield _joining(valkey.url, made)
    for registry in made:
        registry.close()


@pytest.fixture(params=["alone", "over Redis"])
def registry(request: pytest.FixtureRequest, valkey: EmbeddedValkey) -> Iterator[Circuits]:
    """One process's circuits, with and without Redis: both keep the same rules."""
    made: list[Circuits] = []
    _forget(valkey.url)
    yield _joining(valkey.url if request.param == "over Redis" else None, made)()
    made[0].close()


class Provider:
    """Answers or raises as told; counts what reaches it."""

    def __init__(self, registry: Circuits, circuit: str = VAPI) -> None:
        self.calls = 0
        self.outcome: BaseException | str = "fine"
        self.call = protected(circuit, registry)(self._answer)

    def _answer(self) -> str:
        self.calls += 1
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome

    def fail(self, times: int, error: BaseException | None = None) -> None:
        """Let it fail so often."""
        self.outcome = error or ProviderUnavailable()
        for _ in range(times):
            with pytest.raises(type(self.outcome)):
                self.call()
        self.outcome = "fine"


def _state(registry: Circuits, circuit: str = VAPI) -> str:
    return next(one.state for one in registry.states() if one.name == circuit)


def _wait_for(condition: Callable[[], bool], seconds: float = 5.0) -> float:
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds, "it did not happen in time"
        time.sleep(0.01)
    return time.monotonic() - begun


def test_three_consecutive_failures_open_the_circuit_and_nothing_is_sent_any_more(registry: Circuits) -> None:
    provider = Provider(registry)
    provider.fail(3)
    with pytest.raises(CircuitOpen) as refusal:
        provider.call()
    assert provider.calls == 3
    assert refusal.value.circuit == VAPI
    assert 0 < refusal.value.retry_after.total_seconds() <= OPEN_SECONDS


def test_a_success_between_failures_begins_the_count_anew(registry: Circuits) -> None:
    provider = Provider(registry)
    provider.fail(2)
    assert provider.call() == "fine"
    provider.fail(2)
    assert _state(registry) == "closed"
    provider.fail(1)
    assert _state(registry) == "open"


@pytest.mark.parametrize(
    "error",
    [
        CredentialsRefused(),
        ProviderRefused(),
        ProviderThrottled(),
        DeadlineExceeded(),
        KeyError("unexpected"),
        KeyboardInterrupt(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_says_nothing_of_the_provider_neither_counts_nor_forgives(
    registry: Circuits, error: BaseException
) -> None:
    provider = Provider(registry)
    provider.fail(5, error)
    assert _state(registry) == "closed"
    provider.fail(2)
    provider.fail(2, error)
    provider.fail(1)
    assert _state(registry) == "open"


def test_the_probe_after_the_pause_closes_the_circuit_when_it_succeeds(registry: Circuits) -> None:
    provider = Provider(registry)
    provider.fail(3)
    _wait_for(lambda: _state(registry) == "half_open")
    assert provider.call() == "fine"
    assert _state(registry) == "closed"
    provider.fail(2)
    assert _state(registry) == "closed"


def test_a_failed_probe_opens_it_for_another_pause(registry: Circuits) -> None:
    provider = Provider(registry)
    provider.fail(3)
    _wait_for(lambda: _state(registry) == "half_open")
    provider.fail(1)
    assert _state(registry) == "open"
    with pytest.raises(CircuitOpen):
        provider.call()


def test_a_refused_probe_closes_it_because_the_provider_did_its_work(registry: Circuits) -> None:
    provider = Provider(registry)
    provider.fail(3)
    _wait_for(lambda: _state(registry) == "half_open")
    provider.fail(1, ProviderRefused())
    assert _state(registry) == "closed"


@pytest.mark.parametrize("error", [CredentialsRefused(), ProviderThrottled(), DeadlineExceeded(), ValueError()])
def test_a_probe_that_proves_nothing_makes_way_for_the_next(registry: Circuits, error: BaseException) -> None:
    provider = Provider(registry)
    provider.fail(3)
    _wait_for(lambda: _state(registry) == "half_open")
    provider.fail(1, error)
    assert _state(registry) == "half_open"
    assert provider.call() == "fine"
    assert _state(registry) == "closed"


def test_of_many_threads_one_probes_and_the_others_are_told_to_wait(registry: Circuits) -> None:
    provider = Provider(registry)
    provider.fail(3)
    _wait_for(lambda: _state(registry) == "half_open")
    inside, leave = threading.Event(), threading.Event()

    @protected(VAPI, registry)
    def slow() -> str:
        inside.set()
        assert leave.wait(10)
        return "fine"

    with ThreadPoolExecutor(9) as pool:
        probe = pool.submit(slow)
        assert inside.wait(10)
        others = [pool.submit(provider.call) for _ in range(8)]
        assert all(isinstance(other.exception(), CircuitOpen) for other in others)
        leave.set()
        assert probe.result() == "fine"
    assert provider.calls == 3
    assert _state(registry) == "closed"


def test_a_call_from_before_the_outage_cannot_close_the_circuit_when_it_ends_late(registry: Circuits) -> None:
    inside, leave = threading.Event(), threading.Event()

    @protected(VAPI, registry)
    def straggler() -> str:
        inside.set()
        assert leave.wait(10)
        return "fine"

    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(straggler)
        assert inside.wait(10)
        Provider(registry).fail(3)
        leave.set()
        assert late.result() == "fine"
    assert _state(registry) != "closed"


def test_a_call_from_before_the_outage_that_fails_late_does_not_prolong_it(registry: Circuits) -> None:
    inside, leave = threading.Event(), threading.Event()

    @protected(VAPI, registry)
    def straggler() -> str:
        inside.set()
        assert leave.wait(10)
        raise ProviderUnavailable

    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(straggler)
        assert inside.wait(10)
        Provider(registry).fail(3)
        _wait_for(lambda: _state(registry) == "half_open")
        leave.set()
        assert isinstance(late.exception(), ProviderUnavailable)
    assert _state(registry) == "half_open"
    assert Provider(registry).call() == "fine"


def test_circuits_do_not_touch_each_other(registry: Circuits) -> None:
    Provider(registry, VAPI).fail(3)
    assert _state(registry, VAPI) == "open"
    assert Provider(registry, SLACK).call() == "fine"
    assert [one.name for one in registry.states()] == list(CIRCUITS)


def test_listeners_hear_every_change_and_a_broken_one_harms_nobody(registry: Circuits) -> None:
    heard: list[tuple[str, str, str]] = []
    registry.on_change(lambda *_: 1 / 0)
    registry.on_change(lambda *change: heard.append(change))
    provider = Provider(registry)
    provider.fail(3)
    _wait_for(lambda: _state(registry) == "half_open")
    assert provider.call() == "fine"
    assert heard in (
        [(VAPI, "closed", "open"), (VAPI, "open", "half_open"), (VAPI, "half_open", "closed")],
        [(VAPI, "closed", "open"), (VAPI, "open", "closed")],
    )


def test_an_operator_can_close_a_circuit(registry: Circuits) -> None:
    provider = Provider(registry)
    provider.fail(3)
    registry.reset(VAPI)
    assert _state(registry) == "closed"
    assert provider.call() == "fine"


def test_a_name_that_is_not_declared_stops_the_import() -> None:
    with pytest.raises(ConfigurationError, match="twilio_fax"):
        protected("twilio_fax")


def test_a_decision_costs_microseconds(join: Joining) -> None:
    registry = join()
    provider = Provider(registry)
    provider.call()
    begun = time.perf_counter()
    for _ in range(10_000):
        provider.call()
    assert (time.perf_counter() - begun) / 10_000 < 50e-6


# --- several processes ------------------------------------------------------------------------


def test_failures_of_several_processes_add_up(join: Joining) -> None:
    first, second = join(), join()
    Provider(first).fail(2)
    Provider(second).fail(1)
    assert _state(second) == "open"


def test_another_process_sees_the_opening_and_the_closing_within_about_a_second(join: Joining) -> None:
    first, second = join(), join()
    provider, idle = Provider(first), Provider(second)
    assert idle.call() == "fine"
    provider.fail(3)
    assert _wait_for(lambda: _state(second) == "open" or _state(second) == "half_open") < 1.6
    _wait_for(lambda: _state(first) == "half_open")
    assert provider.call() == "fine"
    assert _wait_for(lambda: _state(second) == "closed") < 1.6


def test_of_several_processes_one_probes(join: Joining) -> None:
    first, second = join(), join()
    Provider(first).fail(3)
    late = Provider(second)
    _wait_for(lambda: _state(first) == "half_open" and _state(second) == "half_open")
    inside, leave = threading.Event(), threading.Event()

    @protected(VAPI, first)
    def slow() -> str:
        inside.set()
        assert leave.wait(10)
        return "fine"

    with ThreadPoolExecutor(1) as pool:
        probe = pool.submit(slow)
        assert inside.wait(10)
        with pytest.raises(CircuitOpen):
            late.call()
        assert late.calls == 0
        leave.set()
        assert probe.result() == "fine"
    _wait_for(lambda: _state(second) == "closed")


def test_a_new_process_knows_at_its_first_call_that_a_circuit_is_open(join: Joining) -> None:
    Provider(join()).fail(3)
    newcomer = Provider(join())
    with pytest.raises(CircuitOpen):
        newcomer.call()


def test_a_forked_child_and_its_parent_share_what_they_find_out(valkey: EmbeddedValkey) -> None:
    _forget(valkey.url)
    script = f"""
import os, time
from app.errors import CircuitOpen, ProviderUnavailable
from app.integrations.breaker import VAPI, circuits, protected
from app.redis import RedisLink

@protected(VAPI)
def call():
    raise ProviderUnavailable()

def try_it():
    try:
        call()
    except (CircuitOpen, ProviderUnavailable) as error:
        return type(error).__name__

circuits.connect(RedisLink({valkey.url!r}), 30)
seen = [try_it()]
child = os.fork()
if not child:
    tried = [try_it(), try_it(), try_it()]
    os._exit(0 if tried == ["ProviderUnavailable"] * 2 + ["CircuitOpen"] else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
time.sleep(1.5)
assert try_it() == "CircuitOpen"
second = os.fork()
if not second:
    os._exit(0 if try_it() == "CircuitOpen" else 1)
assert os.waitstatus_to_exitcode(os.waitpid(second, 0)[1]) == 0
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_a_child_forked_while_a_thread_holds_the_locks_is_not_stuck() -> None:
    script = """
import os, threading
from app.integrations.breaker import VAPI, circuits, protected
call = protected(VAPI)(lambda: "fine")
held = threading.Event()
def hold():
    with circuits.lock, circuits.get(VAPI).here._lock:
        held.set()
        threading.Event().wait()
threading.Thread(target=hold, daemon=True).start()
held.wait()
child = os.fork()
if not child:
    circuits.reset()
    os._exit(0 if call() == "fine" else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)


# --- Redis goes and comes back ----------------------------------------------------------------


@pytest.fixture
def fragile(own_valkey: EmbeddedValkey) -> Iterator[Joining]:
    """Registries over a Redis that this test breaks; open circuits stay open."""
    made: list[Circuits] = []
    yield _joining(own_valkey.url, made, open_seconds=30)
    for registry in made:
        registry.close()


def test_with_redis_gone_each_process_goes_on_from_what_it_knew(fragile: Joining, own_valkey: EmbeddedValkey) -> None:
    registry, other = fragile(), fragile()
    provider = Provider(registry)
    provider.fail(2)
    own_valkey.kill()
    provider.fail(1)
    assert _state(registry) == "open"
    assert Provider(other).call() == "fine"


def test_what_tripped_while_redis_was_away_is_told_when_it_is_back(
    fragile: Joining, own_valkey: EmbeddedValkey
) -> None:
    registry, other = fragile(), fragile()
    Provider(other).call()
    own_valkey.kill()
    Provider(registry).fail(3)
    own_valkey.restart(empty=True)
    _wait_for(lambda: _state(other) == "open", 10)
    assert _state(registry) == "open"


def test_a_redis_that_forgets_everything_closes_circuits_and_breaks_nothing(
    fragile: Joining, own_valkey: EmbeddedValkey
) -> None:
    registry = fragile()
    provider = Provider(registry)
    provider.fail(3)
    redis.Redis.from_url(own_valkey.url).flushall()
    _wait_for(lambda: _state(registry) == "closed")
    assert provider.call() == "fine"


def test_a_frozen_redis_costs_a_call_less_than_a_fifth_of_a_second(
    fragile: Joining, own_valkey: EmbeddedValkey
) -> None:
    registry = fragile()
    provider = Provider(registry)
    provider.call()
    own_valkey.freeze()
    try:
        begun = time.monotonic()
        provider.fail(3)
        assert time.monotonic() - begun < 0.2
        assert _state(registry) == "open"
    finally:
        own_valkey.thaw()
