"""A circuit for each target that somebody else has named, so that one dead target costs nobody else anything.

Owns their coming and going: a circuit is made by its first call here, and when there are too many the closed one
that was used longest ago is forgotten. How a circuit works is `circuit`'s, shared by Redis as all are.
"""

from __future__ import annotations

import os

from app.integrations.breaker import FORWARD, Circuits
from app.integrations.circuit import SharedCircuit

MOST = 500  # each is one key in the poll of every second


class TargetCircuits(Circuits):
    """The registry of circuits that nobody declares."""

    def __init__(self) -> None:
        super().__init__(())

    def get(self, name: str) -> SharedCircuit:
        """The circuit of this name, made if need be."""
        with self.lock:
            circuit = self._circuits.pop(name, None) or self.made(name)
            self._circuits[name] = circuit  # the last is the one used last
            if len(self._circuits) > MOST:
                idle = (other for other, one in self._circuits.items() if one.state == "closed" and other != name)
                self._circuits.pop(next(idle, ""), None)
        return circuit


def name_of(target: object) -> str:
    """The name of a target's circuit."""
    return f"{FORWARD}:{target}"


target_circuits = TargetCircuits()
os.register_at_fork(after_in_child=target_circuits.after_fork)
