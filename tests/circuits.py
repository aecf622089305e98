"""A provider that fails on demand, and registries of circuits that stand for processes."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import redis

from app.errors import ProviderUnavailable
from app.integrations.breaker import VAPI, Circuits, protected
from app.redis import RedisLink

OPEN_SECONDS = 0.3
Joining = Callable[[], Circuits]


def forget(url: str) -> None:
    """Drop what Redis knows of circuits."""
    client = redis.Redis.from_url(url)
    for key in client.scan_iter("voicedesk:circuit:*"):
        client.delete(key)
    client.close()


def joining(url: str | None, made: list[Circuits], open_seconds: float = OPEN_SECONDS) -> Joining:
    """How a test makes registries, as if in several processes."""

    def join() -> Circuits:
        registry = Circuits()
        registry.connect(RedisLink(url), open_seconds)
        made.append(registry)
        return registry

    return join


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


def state_of(registry: Circuits, circuit: str = VAPI) -> str:
    """The state of a circuit in one registry: closed, open or half_open."""
    return next(one.state for one in registry.states() if one.name == circuit)


def wait_for(condition: Callable[[], bool], seconds: float = 5.0) -> float:
    """Wait until it is so; return the seconds it took."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds, "it did not happen in time"
        time.sleep(0.01)
    return time.monotonic() - begun
