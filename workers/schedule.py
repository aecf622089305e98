"""The schedule as a list, and how it is brought into rq-scheduler. Owns which job runs how often."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from rq.job import Job
from rq_scheduler import Scheduler

FOR_EVER = -1  # an entry's own record must outlive its run, or the entry goes with it and begins anew


@dataclass(frozen=True, slots=True)
class Entry:
    """One job. ``id`` is fixed, so that registering again replaces instead of doubling."""

    id: str
    job: str
    every_seconds: int
    timeout_seconds: int


SCHEDULE = (
    Entry("voicedesk-sweep", "workers.jobs.sweep", 5, 180),
    Entry("voicedesk-cleanup", "workers.jobs.clean_up", 600, 300),
)


def register(scheduler: Scheduler) -> None:
    """Make rq-scheduler hold exactly this list; what is there and not listed goes. Safe to repeat.

    Repeated while running, because a crash between its two steps, or an emptied Redis, loses entries.
    """
    wanted = {entry.id for entry in SCHEDULE}
    present = {job.id: job for job in scheduler.get_jobs()}
    for job_id, job in present.items():
        if job_id.startswith("voicedesk-") and job_id not in wanted:
            scheduler.cancel(job)
    for entry in SCHEDULE:
        known = present.get(entry.id)
        if known is not None and _is_as_listed(known, entry):
            continue
        if known is not None:
            scheduler.cancel(known)
        scheduler.schedule(
            scheduled_time=datetime.now(UTC).replace(tzinfo=None),
            func=entry.job,
            interval=entry.every_seconds,
            repeat=None,
            id=entry.id,
            timeout=entry.timeout_seconds,
            result_ttl=FOR_EVER,
            description=entry.id,
        )


def _is_as_listed(known: Job, entry: Entry) -> bool:
    listed = (entry.job, entry.every_seconds, entry.timeout_seconds, FOR_EVER)
    return listed == (known.func_name, known.meta.get("interval"), known.timeout, known.result_ttl)


class OnceScheduler(Scheduler):  # type: ignore[misc]
    """rq-scheduler, which puts an entry into the queue once: not again while it still waits there.

    Without a worker a day's sweeps would otherwise pile up, and stand before the next bell.
    """

    def enqueue_job(self, job: Job) -> None:
        """Queue the entry, or, when it waits there already, only give it its next date."""
        if self.get_queue_for_job(job).get_job_position(job.id) is None:
            super().enqueue_job(job)
            return
        next_at = datetime.now(UTC).timestamp() + job.meta["interval"]
        self.connection.zadd(self.scheduled_jobs_key, {job.id: next_at})
