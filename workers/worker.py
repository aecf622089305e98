"""The worker process: `rq worker --url $REDIS_URL --worker-class workers.Worker voicedesk`.

Owns the platform of this process. A job runs in this process, not in a fork of it: a fork loses the
connections and costs ten times what a drain does; what may kill the process runs in one of its own
(services/isolation.py). Subclasses as little of RQ as possible.
"""

from __future__ import annotations

import sys
import threading
from datetime import timedelta
from typing import Any

from rq import SimpleWorker
from rq.job import Job
from rq.utils import now

from app.config import load_settings
from app.errors import ConfigurationError, DatabaseUnavailable
from app.interpreter import settle
from app.observability.errors import report, watch_process
from app.observability.logging import configure_logging, get_logger
from app.observability.sentry import configure_sentry
from app.services.departure import Departure
from app.services.drain import Drain
from app.services.platform import Platform

GRACE_SECONDS = 20.0  # for what runs when the process is told to stop
SAME_WISH = timedelta(seconds=1)  # a second signal sooner than this is the first one's echo

log = get_logger(__name__)


class Runtime:
    """The platform and the drain of this worker process, built once."""

    def __init__(self) -> None:
        settings = load_settings()
        configure_logging(settings)
        configure_sentry(settings)
        watch_process("job")
        self.platform = Platform(settings, kind="worker")
        self.drain = Drain(self.platform, threads=settings.worker_threads)
        self.departure = Departure(
            self.platform, (self.drain, self.platform.caretaker.drain), grace_seconds=GRACE_SECONDS
        )
        self.stopping = threading.Event()


_runtime: Runtime | None = None
_lock = threading.Lock()


def runtime() -> Runtime:
    """This process's runtime; built at the first call, also under a plain `rq worker`."""
    global _runtime
    if _runtime is not None:
        return _runtime  # without the lock: a signal's handler asks too, and may interrupt who holds it
    with _lock:
        if _runtime is None:
            _runtime = Runtime()
    return _runtime


class Worker(SimpleWorker):
    """RQ's worker without a fork, whose stop also reaches the drain that is running."""

    log_result_lifespan = False  # a line a job that says nothing; what a drain did, its deliveries tell
    max_connection_wait_time = 2.0  # Redis back after an hour is noticed within two seconds, not sixty

    def work(self, *args: Any, **kwargs: Any) -> bool:
        """Start: refuse wrong settings and a role that sees too much, then work until told to stop."""
        try:
            runtime().platform.database.verify_role()
        except ConfigurationError as error:
            sys.stderr.write(f"Voicedesk does not start: {error}\n")
            raise SystemExit(78) from None
        except DatabaseUnavailable:
            log.warning("worker.no_database")  # checked again with the first connection
        runtime().platform.meet_everybody()
        settle()
        runtime().departure.expect()
        runtime().platform.bell.ring()  # what came while no worker lived
        runtime().platform.spool_keeper.start()  # that of a web process on this host, should none live
        runtime().platform.watcher.start()
        try:
            return bool(super().work(*args, **kwargs))
        finally:
            runtime().platform.close()  # rings once more for what a stopped drain has left

    def handle_exception(self, job: Job, *exc_info: Any) -> None:
        """A job failed: report it, then go on as RQ does."""
        report(exc_info[1], where="job", event="job.failed", job=job.func_name)
        super().handle_exception(job, *exc_info)

    def request_stop(self, signum: Any, frame: Any) -> None:
        """SIGTERM, SIGINT: end the running drain early; it finishes what it has begun, within a bound."""
        runtime().departure.soon()
        runtime().stopping.set()
        runtime().platform.caretaker.claim_no_more()  # a sweep may be delivering too
        super().request_stop(signum, frame)  # type: ignore[no-untyped-call]

    def request_force_stop(self, signum: Any, frame: Any) -> None:
        """A second signal, at least a second after the first (a terminal sends one to each of a group): leave now."""
        assert self._shutdown_requested_date is not None
        if now() - self._shutdown_requested_date >= SAME_WISH:
            runtime().departure.now()
