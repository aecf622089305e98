"""The circuit breakers around every call to a provider, shared by all processes.

Owns the names of the circuits, the decorator, the background poll that keeps this process's copy of the
state fresh (once a second), and who hears of changes. What counts as a failure is `circuit`'s, how the
state is kept `circuit_state`'s. Must not retry: that is `retrying`, outside.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ParamSpec, TypeVar, cast

from app.errors import ConfigurationError
from app.integrations.circuit import SharedCircuit
from app.integrations.circuit_state import FAILURES_TO_OPEN, RedisKeeper, State
from app.observability.errors import report
from app.observability.logging import get_logger
from app.redis import RedisAway, RedisLink

TWILIO_SMS = "twilio_sms"
TWILIO_WHATSAPP = "twilio_whatsapp"
GOOGLE_CALENDAR_FREEBUSY = "google_calendar_freebusy"
GOOGLE_CALENDAR_EVENTS = "google_calendar_events"
VAPI = "vapi"
SLACK = "slack"
FORWARD = "forward"  # how the names of targets' circuits begin: `target_circuits`
CIRCUITS = (TWILIO_SMS, TWILIO_WHATSAPP, GOOGLE_CALENDAR_FREEBUSY, GOOGLE_CALENDAR_EVENTS, VAPI, SLACK)

POLL_SECONDS = 1.0

Listener = Callable[[str, State, State], None]
P = ParamSpec("P")
T = TypeVar("T")

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CircuitState:
    """A circuit as operators see it; ``retry_after`` is how long an open one still refuses everybody."""

    name: str
    state: State
    failures: int
    retry_after: timedelta


class Circuits:
    """All circuits of this process, their link to the other processes, and who wants to hear of changes."""

    def __init__(self, names: Sequence[str] = CIRCUITS) -> None:
        self.link = RedisLink(None)
        self.open_seconds = 30.0
        self.failures = FAILURES_TO_OPEN
        self.lock = threading.Lock()
        self._listeners: list[Listener] = []
        self._poller: threading.Thread | None = None
        self._stop = threading.Event()
        self._circuits = {name: SharedCircuit(name, self) for name in names}

    def connect(self, link: RedisLink, open_seconds: float, failures: int = FAILURES_TO_OPEN) -> None:
        """Begin afresh: share the state over ``link`` (or keep it here, when Redis is not configured).

        ``failures`` in a row open a circuit, for ``open_seconds``.

        Listeners of before are forgotten, because whoever connects registers its own.
        """
        self._stop_poller()
        self._listeners.clear()
        self.link, self.open_seconds, self.failures = link, open_seconds, failures
        for circuit in self._circuits.values():
            circuit.open_after(failures)
            circuit.here.reset()

    def close(self) -> None:
        """Stop the background poll, forget the link and the listeners; the link itself stays its owner's."""
        self.connect(RedisLink(None), self.open_seconds)

    def get(self, name: str) -> SharedCircuit:
        """The circuit of this name; raises ConfigurationError for a name that is not declared above."""
        if name not in self._circuits:
            raise ConfigurationError(f"there is no circuit called {name!r}")
        return self._circuits[name]

    def made(self, name: str) -> SharedCircuit:
        """A circuit that is like the others and not among them."""
        circuit = SharedCircuit(name, self)
        circuit.open_after(self.failures)
        return circuit

    def states(self) -> list[CircuitState]:
        """Every circuit as this process sees it, at most about a second behind the others."""
        self.watch()
        found = []
        for name, circuit in self._circuits.items():
            reading = circuit.here.read()
            found.append(CircuitState(name, circuit.state, reading.failures, timedelta(seconds=reading.open_seconds)))
        return found

    def on_change(self, listener: Listener) -> None:
        """Call ``listener(name, old, new)`` on each change that this process sees; it must be quick."""
        self._listeners.append(listener)

    def reset(self, name: str | None = None) -> None:
        """Close one circuit, or all, in all processes."""
        for circuit in [self.get(name)] if name else list(self._circuits.values()):
            circuit.reset()

    def watch(self) -> None:
        """See that the background poll runs in this process; the first look is taken at once."""
        if self._poller is not None and self._poller.is_alive():
            return
        with self.lock:
            if self._poller is not None and self._poller.is_alive():
                return
            self._stop = threading.Event()
            self._poller = threading.Thread(target=self._poll, args=(self._stop,), name="circuits", daemon=True)
            self._poller.start()
        self.refresh()

    def refresh(self) -> None:
        """Copy what Redis knows; without Redis, only notice the time that has passed."""
        circuits = list(self._circuits.values())
        versions = [circuit.here.version for circuit in circuits]
        try:
            readings = self.link.use(lambda client: self._tell_and_read(client, circuits))
        except RedisAway:
            readings = []
        for circuit, version, reading in zip(circuits, versions, readings, strict=False):
            circuit.here.keep(reading, if_version=version)
        for circuit in circuits:
            circuit.announce()

    def changed(self, name: str, old: State, new: State) -> None:
        """Tell the listeners; one that fails must not fail the call under way."""
        for listener in list(self._listeners):
            try:
                listener(name, old, new)
            except Exception as error:  # noqa: BLE001 - somebody else's code, in the middle of a provider's answer
                report(error, where="thread", event="circuit.listener_failed", circuit=name)

    def after_fork(self) -> None:
        """Threads do not survive a fork, and a lock they held would never be given back."""
        self.lock = threading.Lock()
        self._poller = None
        for circuit in self._circuits.values():
            circuit.after_fork()

    @staticmethod
    def _tell_and_read(client: Any, circuits: list[SharedCircuit]) -> list[Any]:
        for circuit in circuits:
            circuit.tell(client)
        return RedisKeeper.read_all(client, [circuit.there for circuit in circuits])

    def _poll(self, stop: threading.Event) -> None:
        while not stop.wait(POLL_SECONDS):
            self.refresh()

    def _stop_poller(self) -> None:
        self._stop.set()
        poller, self._poller = self._poller, None
        if poller is not None and poller is not threading.current_thread():
            poller.join(timeout=2 * POLL_SECONDS)


circuits = Circuits()
os.register_at_fork(after_in_child=circuits.after_fork)


def protected(circuit: str, registry: Circuits = circuits) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Decorate a function that calls a provider: it raises CircuitOpen, at once, while ``circuit`` is open.

    The function must end within `circuit_state.PROBE_SECONDS`. An undeclared name is a ConfigurationError.
    """
    return cast(Callable[[Callable[P, T]], Callable[P, T]], registry.get(circuit).decorate)
