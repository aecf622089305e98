"""The jobs: a few lines each, every one a call of a service. A job carries no payload and no promise."""

from __future__ import annotations

from app.errors import DatabaseUnavailable
from app.observability.logging import get_logger
from app.services import cleanup
from workers.worker import runtime

log = get_logger(__name__)


def drain() -> int:
    """Deliver what is due until nothing is; returns how many lanes."""
    here = runtime()
    try:
        return here.drain.run(keep_going=lambda: not here.stopping.is_set())
    except DatabaseUnavailable:
        log.warning("drain.no_database")  # the rows wait; the sweep rings when it is back
        return 0


def sweep() -> None:
    """Ring for what is due although nobody rang."""
    try:
        runtime().platform.caretaker.sweep()
    except DatabaseUnavailable:
        log.warning("sweep.no_database")


def clean_up() -> dict[str, int]:
    """Delete what is finished and old."""
    try:
        return cleanup.clean_up(runtime().platform)
    except DatabaseUnavailable:
        log.warning("cleanup.no_database")
        return {}
