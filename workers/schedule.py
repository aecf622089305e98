"""The schedule as a list, and how it is brought into rq-scheduler. Owns which job runs how often."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from rq_scheduler import Scheduler


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
        if known is not None and known.func_name == entry.job and known.meta.get("interval") == entry.every_seconds:
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
            result_ttl=60,
            description=entry.id,
        )
