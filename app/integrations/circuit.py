"""One circuit breaker: who may call a provider just now, and what an answer says about its health.

Owns the admission of calls and of the one probe, and the judgement of exceptions. Decides from this
process's own copy of the state (microseconds); Redis is only told of failures and of ends of rows of
failures. What counts:

- ``ProviderUnavailable`` is a failure.
- A refusal (4xx) means that the provider did its work. It ends a probe well, because the first call
  after an outage is often a repetition that is answered "exists already". Otherwise it counts as
  nothing: calls that are refused on the way in must not hide that all others fail.
- Refused credentials and 429 are answered at the provider's door and say nothing of what is behind
  it; a short deadline and any other exception say nothing of the provider at all. They count as
  nothing, and as a probe they only make way for the next.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

from circuitbreaker import STATE_CLOSED, STATE_HALF_OPEN, STATE_OPEN, CircuitBreaker

from app.errors import CircuitOpen, ProviderRefused, ProviderUnavailable
from app.integrations.circuit_state import FAILURES_TO_OPEN, LocalKeeper, Reading, RedisKeeper, State
from app.observability import metrics
from app.observability.logging import get_logger
from app.redis import RedisAway

if TYPE_CHECKING:
    from app.integrations.breaker import Circuits

PROBE_ENDS_SECONDS = 1.0  # what those are told to wait who find another's probe under way
ASK_AGAIN_SECONDS = 0.25  # while another probes, Redis is not asked by every call
LOOKS = 10  # at Redis after a change here, while other threads change it too; then the background poll's look counts

T = TypeVar("T")

log = get_logger(__name__)


class SharedCircuit(CircuitBreaker):  # type: ignore[misc]  # the package has no types
    """The package's decorator and vocabulary, over a state that processes share and one probe at a time."""

    def __init__(self, name: str, registry: Circuits) -> None:
        super().__init__(FAILURES_TO_OPEN, expected_exception=ProviderUnavailable, name=name)
        self._fallback_function = self._refuse
        self._registry = registry
        self.here = LocalKeeper()
        self.there = RedisKeeper(name)
        self._untold = False  # something happened here while Redis was away
        self._announced: State = "closed"
        self._ask_again_at = 0.0

    def open_after(self, failures: int) -> None:
        """How many failures in a row open it, here and in Redis."""
        self._failure_threshold = self.here.limit = self.there.limit = failures

    @property
    def state(self) -> State:
        """Closed, open or half_open, from this process's copy."""
        reading = self.here.read()
        if not reading.tripped:
            return cast(State, STATE_CLOSED)
        return cast(State, STATE_OPEN if reading.open_seconds else STATE_HALF_OPEN)

    @property
    def opened(self) -> bool:
        """What the package's wrapper asks before every call."""
        self._registry.watch()
        return bool(self.state == STATE_OPEN)

    @property
    def failure_count(self) -> int:
        """Consecutive failures, of all processes."""
        return self.here.read().failures

    @property
    def open_remaining(self) -> float:
        """Seconds for which it refuses everybody."""
        return self.here.read().open_seconds

    def __enter__(self) -> NoReturn:
        raise TypeError("a circuit decorates a plain function; as a context it could not tell its probe from others")

    def call(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call ``function`` as an ordinary call or as the probe; raise CircuitOpen if it may be neither."""
        token = self._admit()
        began = time.monotonic()
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            self._say(began, getattr(error, "code", None) or type(error).__name__)
            metrics.outbound_ended(self.name, error, time.monotonic() - began)
            self._judge(error, token)
            raise
        self._say(began, "ok")
        metrics.outbound_ended(self.name, None, time.monotonic() - began)
        if token or self.here.read().failures:
            self._succeeded(token)
        return result

    def guard(self, function: Callable[..., T], *args: Any) -> T:
        """What the decorator does, for one call: refused at once while it is open."""
        return self._refuse() if self.opened else self.call(function, *args)

    def reset(self) -> None:
        """Close it, whatever it was: an operator knows better."""
        try:
            self._registry.link.use(self.there.clear)
        except RedisAway:
            self._untold = False
        self.here.reset()
        self.announce()

    def tell(self, client: Any) -> None:
        """Let Redis know of a circuit that tripped here while Redis was away."""
        if self._untold:
            reading = self.here.read()
            if reading.tripped:
                self.there.publish(client, reading)
            self._untold = False

    def announce(self) -> None:
        """Tell the listeners if the state is another than the last that they were told."""
        with self._registry.lock:
            old, self._announced = self._announced, self.state
            new = self._announced
        if old != new:
            self._registry.changed(self.name, old, new)

    def after_fork(self) -> None:
        """Be usable in a child, whatever the parent's threads were doing."""
        self.here.after_fork()

    def _admit(self) -> str:
        """The token of the probe; "" for an ordinary call."""
        reading = self.here.read()
        if not reading.tripped:
            return ""
        if time.monotonic() < self._ask_again_at:
            self._refuse()
        token = uuid.uuid4().hex
        version = self.here.version
        try:
            claim = self._use(lambda client: self.there.claim(client, token))
            self.here.keep(claim.reading, if_version=version)
        except RedisAway:
            claim = self.here.claim(token)
        self.announce()
        if claim.granted:
            return token
        if claim.reading.tripped:
            self._ask_again_at = time.monotonic() + ASK_AGAIN_SECONDS
            self._refuse()
        return ""

    def _refuse(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        seconds = self.here.read().open_seconds or PROBE_ENDS_SECONDS
        refused = CircuitOpen(self.name, retry_after=timedelta(seconds=seconds))
        metrics.outbound_ended(self.name, refused, 0.0)
        raise refused

    def _judge(self, error: BaseException, token: str) -> None:
        if isinstance(error, ProviderUnavailable):
            error.circuit, error.probing = self.name, bool(token)
            self._failed(token)
        elif token and isinstance(error, ProviderRefused):
            self._succeeded(token)
        elif token:
            self._release(token)

    def _say(self, began: float, outcome: str) -> None:
        """The one line of an outbound call; whose work it was is bound where it runs."""
        duration_ms = round((time.monotonic() - began) * 1000)
        log.info("outbound.called", circuit=self.name, outcome=outcome, duration_ms=duration_ms)

    def _failed(self, token: str) -> None:
        open_seconds = self._registry.open_seconds
        try:
            self._do(lambda client: self.there.failed(client, token, open_seconds))
        except RedisAway:
            self._untold = True
            self.here.failed(token, open_seconds)
        self.announce()

    def _succeeded(self, token: str) -> None:
        try:
            self._do(lambda client: self.there.succeeded(client, token))
        except RedisAway:
            self.here.succeeded(token)
        self.announce()

    def _release(self, token: str) -> None:
        try:
            self._use(lambda client: self.there.release(client, token))
        except RedisAway:
            self.here.release(token)

    def _do(self, verb: Callable[[Any], Reading]) -> None:
        """Do it in Redis, and keep what is then so. Where another thread has kept something meanwhile, Redis is asked
        again: it may know of what that one did not. Raises RedisAway when it could not be done there."""
        version = self.here.version
        reading = self._use(verb)
        for _ in range(LOOKS):
            if self.here.keep(reading, if_version=version):
                return
            version = self.here.version
            try:
                reading = self._registry.link.use(self.there.read)
            except RedisAway:
                return  # the background poll keeps what is so when Redis is back

    def _use(self, action: Callable[[Any], T]) -> T:
        def told_first(client: Any) -> T:
            self.tell(client)
            return action(client)

        return self._registry.link.use(told_first)
