"""The jobs: a few lines each, every one a call of a service. A job carries no payload and no promise."""

from __future__ import annotations

from app import queue
from app.errors import DatabaseUnavailable
from app.observability.errors import count
from app.observability.logging import get_logger
from app.redis import RedisAway
from workers.worker import runtime

log = get_logger(__name__)


def drain() -> int:
    """Deliver what is due until nothing is; returns how many lanes."""
    here = runtime()
    try:
        return here.drain.run(keep_going=lambda: not here.stopping.is_set())
    except DatabaseUnavailable:
        _database_away("drain")  # the rows wait; the sweep rings when it is back
        return 0


def sweep() -> None:
    """Ring for what is due although nobody rang."""
    try:
        runtime().platform.caretaker.sweep()
    except DatabaseUnavailable:
        _database_away("sweep")


def clean_up() -> bool:
    """Begin to delete what is finished and old, beside the deliveries; False if that runs already."""
    return runtime().platform.nightly.begin()


def reconcile() -> bool:
    """Begin, if it is due, to compare with the providers, beside the deliveries; False if it is not."""
    try:
        return runtime().platform.reconciler.begin_if_due()
    except DatabaseUnavailable:
        _database_away("reconcile")
        return False


def answer_probe(token: str) -> None:
    """Say that a worker took this job, which is all that was asked."""
    platform = runtime().platform
    try:
        queue.answer_probe(platform.redis, token, platform.process_name())
    except RedisAway:
        log.warning("probe.no_redis")  # whoever asked learns it from the silence


def _database_away(job: str) -> None:
    log.warning("job.no_database", job=job)
    count(f"job:{DatabaseUnavailable.code}")
