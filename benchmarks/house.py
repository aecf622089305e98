"""What a measure is given: the servers, the product, the peer if it can be had, and how much is to be run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.ground import Ground
from benchmarks.peer import Peer
from benchmarks.product import Product


@dataclass(frozen=True, slots=True)
class House:
    """All that stands ready. ``seconds``: of load a run; ``backlog``: events that wait; ``say`` tells of progress."""

    ground: Ground
    product: Product
    peer: Peer | None
    grouped_peer: Peer | None
    without_peer: str
    rounds: int
    seconds: float
    backlog: int
    say: Callable[[str], None]
