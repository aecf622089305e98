"""Waking what waits for a circuit: one delivery to probe it while it is half open, all when it is closed.

Owns who is pulled forward and when the bell is rung for them. What waits has a date of its own, far
ahead, so that a wake-up that is missed costs time and nothing else. Who was refused just before its circuit closed
may be written down as waiting just after all were woken, so whoever writes it down has it looked for once more
(``parked``); the sweep looks again every few seconds for all else, such as one whose probe died.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING

from app.errors import DatabaseUnavailable
from app.integrations.breaker import circuits
from app.models.attempts import list_parked, wake_one, wake_waiting
from app.observability.errors import report
from app.observability.logging import get_logger
from app.services.turns import rate_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.services.platform import Platform

MOST_RINGS = 600  # what is woken for later than they reach is found by the sweep
MOST_KEPT = 500  # circuits whose last closing is known: those of forwards come and go

log = get_logger(__name__)


class Waker:
    """One process's. It hears of every circuit that changes; what another process has woken waits no more."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._closed_at: OrderedDict[str, float] = OrderedDict()  # time.monotonic()
        self._lock = threading.Lock()

    def circuit_changed(self, circuit: str, old: str, new: str) -> None:
        """Listener of the circuits. In a thread: it is a provider's call that closes one, and its caller may wait."""
        log.warning("circuit.changed", circuit=circuit, was=old, now=new)
        if new == "closed":
            self._note_closing(circuit)
        wake = {"closed": self._wake_all, "half_open": self._wake_one}.get(new)
        if wake is not None:
            threading.Thread(target=self._safely, args=(wake, circuit), name="wake", daemon=True).start()

    def parked(self, circuit: str, *, since: float) -> None:
        """One that began then (time.monotonic) was refused, and is written down as waiting: woken, if its circuit
        has closed since. Whether it is closed would not do: one that this process has forgotten looks closed.
        """
        with self._lock:
            has_closed = self._closed_at.get(circuit, since) > since
        if has_closed:
            self._safely(self._wake_parked, circuit)

    def tend(self) -> None:
        """Again what a change should have done, for whom it was missed. Raises DatabaseUnavailable."""
        with self._platform.database.transaction(system=True) as session:
            parked = list_parked(session)
        if not parked:
            return
        for circuit in circuits.states():
            if circuit.name in parked and circuit.state == "half_open":
                self._wake_one(circuit.name)
            elif circuit.name in parked and circuit.state == "closed":
                self._wake_parked(circuit.name)

    def _note_closing(self, circuit: str) -> None:
        with self._lock:
            self._closed_at.pop(circuit, None)
            self._closed_at[circuit] = time.monotonic()
            if len(self._closed_at) > MOST_KEPT:
                self._closed_at.popitem(last=False)

    def _wake_all(self, circuit: str, *, only_parked: bool = False) -> None:
        rate = rate_of(self._platform.settings, circuit)
        with self._platform.database.transaction(system=True) as session:
            woken = wake_waiting(session, circuit, per_second=rate, only_parked=only_parked)
        log.info("circuit.woken", circuit=circuit, deliveries=woken)
        for number in range(min(woken, MOST_RINGS)):
            self._platform.bell.ring_in(number / rate)

    def _wake_parked(self, circuit: str) -> None:
        self._wake_all(circuit, only_parked=True)

    def _wake_one(self, circuit: str) -> None:
        with self._platform.database.transaction(system=True) as session:
            woken = wake_one(session, circuit)
        if woken:
            self._platform.bell.ring()

    @staticmethod
    def _safely(wake: Callable[[str], None], circuit: str) -> None:
        try:
            wake(circuit)
        except DatabaseUnavailable:
            return  # the sweep does it when the database is back
        except Exception as error:  # noqa: BLE001 - a thread's end; the sweep looks again
            report(error, where="thread", event="circuit.not_woken", circuit=circuit)
