"""The scheduler process: `python -m workers.scheduler`.

Owns only its loop: rq-scheduler enqueues what is due, and the list is registered again and again,
so that an emptied Redis has it back within seconds. With Redis away it waits and tries again.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType

import redis

from app.config import load_settings
from app.errors import ConfigurationError
from app.observability.errors import report, watch_process
from app.observability.logging import configure_logging, describe, get_logger
from app.observability.sentry import configure_sentry
from app.queue import QUEUE_NAME
from app.redis import RedisAway, RedisLink
from app.services.error_counts import ErrorCounts
from workers.schedule import OnceScheduler, register
from workers.told import Told

POLL_SECONDS = 1.0
STOP_SECONDS = 10

log = get_logger(__name__)


def main() -> int:
    """Run until SIGTERM or SIGINT; returns the exit code."""
    try:
        settings = load_settings()
        configure_logging(settings)
        configure_sentry(settings)
        watch_process("scheduler")
        link = RedisLink.from_settings(settings)
        connection = link.for_jobs()
    except (ConfigurationError, RedisAway) as error:
        sys.stderr.write(f"The scheduler does not start: {error}\n")
        return 78
    error_counts = ErrorCounts(link)
    told = Told()

    def stop(number: int, _frame: FrameType | None) -> None:
        """Once: leave after this round. Again, or with a Redis that holds us up: at once; the lock ends by itself."""
        signal.alarm(STOP_SECONDS)
        signal.signal(number, signal.SIG_DFL)
        told.tell()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    scheduler = OnceScheduler(queue_name=QUEUE_NAME, connection=connection, interval=POLL_SECONDS)
    log.info("scheduler.started")
    while not told.within(POLL_SECONDS):
        try:
            # Its lock lets one scheduler of several work; it ends by itself when that one dies.
            if scheduler.acquire_lock():
                register(scheduler)
                scheduler.enqueue_jobs()
                scheduler.remove_lock()
        except redis.RedisError as error:
            log.warning("scheduler.no_redis", **describe(error))
        except Exception as error:  # noqa: BLE001 - the schedule must outlive one bad round
            report(error, where="scheduler", event="scheduler.failed")
    try:
        scheduler.remove_lock()
    except redis.RedisError as error:
        log.warning("scheduler.no_redis", **describe(error))
    error_counts.stop()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
