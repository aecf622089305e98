"""The schedule as a list, and how it is brought into rq-scheduler. Owns which job runs when.

A daily entry has its date computed here: rq-scheduler's cron reads the machine's local time as if it were
UTC, and an interval of a day would drift to whenever a missed night was made up for.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from rq.job import Job
from rq_scheduler import Scheduler

from app.queue import JOB_TIMEOUT_SECONDS, SCHEDULE_IDS, SCHEDULE_PREFIX
from app.services.nightly import next_night

FOR_EVER = -1  # an entry's own record must outlive its run, or the entry goes with it and begins anew


@dataclass(frozen=True, slots=True)
class Entry:
    """One job. ``id`` is fixed, so that registering again replaces instead of doubling.

    ``every_seconds`` None: every night at 04:00 UTC.
    """

    id: str
    job: str
    every_seconds: int | None
    timeout_seconds: int


SWEEP, CLEANUP, RECONCILE = SCHEDULE_IDS
SCHEDULE = (
    Entry(SWEEP, "workers.jobs.sweep", 5, JOB_TIMEOUT_SECONDS),
    Entry(CLEANUP, "workers.jobs.clean_up", None, 30),
    Entry(RECONCILE, "workers.jobs.reconcile", 60, 30),  # asks whether it is due; the date is in the database
)


def register(scheduler: Scheduler) -> None:
    """Make rq-scheduler hold exactly this list; what is there and not listed goes. Safe to repeat.

    Repeated while running, because a crash between its two steps, or an emptied Redis, loses entries.
    """
    wanted = {entry.id for entry in SCHEDULE}
    present = {job.id: job for job in scheduler.get_jobs()}
    for job_id, job in present.items():
        if job_id.startswith(SCHEDULE_PREFIX) and job_id not in wanted:
            scheduler.cancel(job)
    for entry in SCHEDULE:
        known = present.get(entry.id)
        if known is not None and _is_as_listed(known, entry):
            _follow_clock_back(scheduler, entry)
            continue
        if known is not None:
            scheduler.cancel(known)
        now = datetime.now(UTC)
        begins = now if entry.every_seconds else next_night(now)
        scheduler.schedule(
            scheduled_time=begins.replace(tzinfo=None),
            func=entry.job,
            interval=entry.every_seconds,
            repeat=None,
            id=entry.id,
            timeout=entry.timeout_seconds,
            result_ttl=FOR_EVER,
            meta=None if entry.every_seconds else {"nightly": True},
            description=entry.id,
        )


def _follow_clock_back(scheduler: Scheduler, entry: Entry) -> None:
    """An entry further ahead than its interval was dated before this machine's clock was set back: it is due."""
    if entry.every_seconds is None:
        return
    now = datetime.now(UTC).timestamp()
    dated = scheduler.connection.zscore(scheduler.scheduled_jobs_key, entry.id)
    if dated is not None and dated > now + 2 * entry.every_seconds:
        scheduler.connection.zadd(scheduler.scheduled_jobs_key, {entry.id: now}, xx=True)


def _is_as_listed(known: Job, entry: Entry) -> bool:
    listed = (entry.job, entry.every_seconds, entry.every_seconds is None, entry.timeout_seconds, FOR_EVER)
    meta = known.meta
    return listed == (
        known.func_name,
        meta.get("interval"),
        meta.get("nightly", False),
        known.timeout,
        known.result_ttl,
    )


class OnceScheduler(Scheduler):  # type: ignore[misc]
    """rq-scheduler, which puts an entry into the queue once: not again while it still waits there.

    Without a worker a day's sweeps would otherwise pile up, and stand before the next bell.
    """

    def enqueue_job(self, job: Job) -> None:
        """Queue the entry unless it waits there already, and give it its next date.

        The date comes after: a scheduler killed in between queues it once more, and loses nothing.
        """
        queue = self.get_queue_for_job(job)
        if queue.get_job_position(job.id) is None:
            queue.enqueue_job(job)
        now = datetime.now(UTC)
        interval = job.meta.get("interval")
        next_at = now.timestamp() + interval if interval else next_night(now).timestamp()
        self.connection.zadd(self.scheduled_jobs_key, {job.id: next_at})
