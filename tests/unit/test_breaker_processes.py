"""Circuit breakers in several processes: over Redis, across forks, and while Redis is frozen or gone."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from app.errors import CircuitOpen, ProviderUnavailable
from app.integrations.breaker import VAPI, Circuits, protected
from sandbox.valkey import EmbeddedValkey
from tests.circuits import Joining, Provider, forget, joining, state_of, wait_for


@pytest.fixture
def join(valkey: EmbeddedValkey) -> Iterator[Joining]:
    """Make registries as if in several processes, joined by Redis."""
    made: list[Circuits] = []
    forget(valkey.url)
    yield joining(valkey.url, made)
    for registry in made:
        registry.close()


def test_failures_of_several_processes_add_up(join: Joining) -> None:
    first, second = join(), join()
    Provider(first).fail(2)
    Provider(second).fail(1)
    assert state_of(second) == "open"


def test_threads_that_fail_at_once_open_it_once_whoever_hears_from_redis_last(join: Joining) -> None:
    for _ in range(20):
        registry = join()
        registry.reset(VAPI)
        registry.open_seconds = 30.0
        heard: list[tuple[str, str]] = []
        registry.on_change(lambda _, old, new, heard=heard: heard.append((old, new)))
        together = threading.Barrier(8)

        def fail(registry: Circuits = registry, together: threading.Barrier = together) -> None:
            def broken() -> None:
                together.wait(5)
                raise ProviderUnavailable

            with contextlib.suppress(ProviderUnavailable):
                protected(VAPI, registry)(broken)()

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: fail(), range(8)))
        assert heard == [("closed", "open")]


def test_another_process_sees_the_opening_and_the_closing_within_about_a_second(join: Joining) -> None:
    first, second = join(), join()
    provider, idle = Provider(first), Provider(second)
    assert idle.call() == "fine"
    provider.fail(3)
    assert wait_for(lambda: state_of(second) == "open" or state_of(second) == "half_open") < 1.6
    wait_for(lambda: state_of(first) == "half_open")
    assert provider.call() == "fine"
    assert wait_for(lambda: state_of(second) == "closed") < 1.6


def test_of_several_processes_one_probes(join: Joining) -> None:
    first, second = join(), join()
    Provider(first).fail(3)
    late = Provider(second)
    wait_for(lambda: state_of(first) == "half_open" and state_of(second) == "half_open")
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
    wait_for(lambda: state_of(second) == "closed")


def test_a_new_process_knows_at_its_first_call_that_a_circuit_is_open(join: Joining) -> None:
    Provider(join()).fail(3)
    newcomer = Provider(join())
    with pytest.raises(CircuitOpen):
        newcomer.call()


def test_a_forked_child_and_its_parent_share_what_they_find_out(valkey: EmbeddedValkey) -> None:
    forget(valkey.url)
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
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


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
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr


# --- Redis goes and comes back ----------------------------------------------------------------


@pytest.fixture
def fragile(own_valkey: EmbeddedValkey) -> Iterator[Joining]:
    """Registries over a Redis that this test breaks; open circuits stay open."""
    made: list[Circuits] = []
    yield joining(own_valkey.url, made, open_seconds=30)
    for registry in made:
        registry.close()


def test_with_redis_gone_each_process_goes_on_from_what_it_knew(fragile: Joining, own_valkey: EmbeddedValkey) -> None:
    registry, other = fragile(), fragile()
    provider = Provider(registry)
    provider.fail(2)
    own_valkey.kill()
    provider.fail(1)
    assert state_of(registry) == "open"
    assert Provider(other).call() == "fine"


def test_what_tripped_while_redis_was_away_is_told_when_it_is_back(
    fragile: Joining, own_valkey: EmbeddedValkey
) -> None:
    registry, other = fragile(), fragile()
    Provider(other).call()
    own_valkey.kill()
    Provider(registry).fail(3)
    own_valkey.restart(empty=True)
    wait_for(lambda: state_of(other) == "open", 10)
    assert state_of(registry) == "open"


def test_a_redis_that_forgets_everything_closes_circuits_and_breaks_nothing(
    fragile: Joining, own_valkey: EmbeddedValkey
) -> None:
    registry = fragile()
    provider = Provider(registry)
    provider.fail(3)
    redis.Redis.from_url(own_valkey.url).flushall()
    wait_for(lambda: state_of(registry) == "closed")
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
        assert state_of(registry) == "open"
    finally:
        own_valkey.thaw()
