"""The bell: how workers learn that there is work, and what happens when it cannot be rung.

Owns the queue's name, the flag in Redis and the one ringer of each process. A job carries no payload
and no promise: PostgreSQL is the queue of record, so a lost bell costs time, never an event. Requests
never wait for Redis: they set an event in memory, and the ringer does the rest.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from redis import Redis, RedisError
from rq import Queue, Worker

from app.observability.errors import report
from app.observability.logging import get_logger
from app.redis import RedisAway, RedisLink

QUEUE_NAME = "voicedesk"
DRAIN_JOB = "workers.jobs.drain"
BELL_KEY = "voicedesk:bell"
BREATH_SECONDS = 0.005  # from one ring to the next: all that comes in it is one; a lone one is rung at once
BELL_SECONDS = 5  # a bell whose worker died before answering it is silent for no longer
JOB_TIMEOUT_SECONDS = 360  # a drain ends well before, also one whose handler is past its bound
FAILURE_SECONDS = 60
SCHEDULE_IDS = ("voicedesk-sweep", "voicedesk-cleanup", "voicedesk-reconcile")
SCHEDULE_PREFIX = "voicedesk-"
SCHEDULED_KEY = "rq:scheduler:scheduled_jobs"  # rq-scheduler's own
PROBE_JOB = "workers.jobs.answer_probe"
PROBE_KEY = "voicedesk:probe:{token}"
PROBE_SECONDS = 30  # a probe that nobody took is gone by then
RING_AHEAD_SECONDS = 120.0  # what is due later than that is found by the sweep
SLOT_SECONDS = 0.1  # rings for dates that are closer together are one
ENOUGH_JOBS = 20  # that many wait and no worker takes them: one more would tell nobody anything

log = get_logger(__name__)


class Bell:
    """One process's bell. ``on_silence`` is called (from the ringer's thread) when it could not be rung."""

    def __init__(self, link: RedisLink, on_silence: Callable[[], None] | None = None) -> None:
        self._link = link
        self.on_silence = on_silence
        self._wanted = threading.Event()
        self._pending = False
        self._slots: set[int] = set()
        self._thread: threading.Thread | None = None
        self._start = threading.Lock()
        self._slots_lock = threading.Lock()
        self._stopping = False

    def ring(self) -> None:
        """Say that there is work; returns at once. Many calls while the ringer is busy are one ring."""
        if self._thread is None or not self._thread.is_alive():
            self._begin()
        self._pending = True
        self._wanted.set()

    def ring_in(self, seconds: float) -> None:
        """Ring when so much time has passed, for what is due then; returns at once.

        Kept in memory alone, and for a short time: a process that dies leaves it to the sweep.
        """
        if seconds > RING_AHEAD_SECONDS:
            return
        with self._slots_lock:
            self._slots.add(math.ceil((time.monotonic() + seconds) / SLOT_SECONDS))
        if self._thread is None or not self._thread.is_alive():
            self._begin()
        self._wanted.set()  # the ringer computes anew how long it may sleep

    def ring_now(self) -> bool:
        """Ring from this thread; False when Redis could not be told.

        The flag and the job are two steps: if the job cannot be enqueued the flag is taken back, and
        if even that fails it ends by itself after five seconds, and the sweep rings again.
        """
        try:
            if not self._link.use(lambda redis: redis.set(BELL_KEY, "1", nx=True, ex=BELL_SECONDS)):
                return True  # rung already, and no drain has begun since
            self._link.use(_enqueue_drain)
        except RedisAway:
            return False
        except (ValueError, TypeError) as error:  # a job that cannot be built is a bug, and must not stop the ringer
            report(error, where="thread", event="bell.failed")
            return False
        return True

    def answer(self) -> None:
        """A drain begins: take the flag down, before the first claim, so that a later commit rings anew."""
        try:
            self._link.use(lambda redis: redis.delete(BELL_KEY))
        except RedisAway:
            return  # without Redis nobody can ring; the flag ends by itself

    def stop(self) -> None:
        """Let the ringer end, after a last ring if one is wanted."""
        self._stopping = True
        self._wanted.set()
        if self._thread is not None:
            self._thread.join(timeout=2)

    def _begin(self) -> None:
        with self._start:
            if self._thread is None or not self._thread.is_alive():
                # Begun on first use and not at start, because threads do not survive a fork.
                self._wanted = threading.Event()
                self._thread = threading.Thread(target=self._run, name="bell-ringer", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        wanted = self._wanted
        while not self._stopping:
            wanted.wait(self._until_next())
            wanted.clear()
            if self._pass_dates() or self._pending:
                self._pending = False
                if not self.ring_now() and self.on_silence is not None and not self._stopping:
                    self.on_silence()
                time.sleep(BREATH_SECONDS)

    def _until_next(self) -> float | None:
        """For how long no date comes; None while there is none."""
        with self._slots_lock:
            return max(0.0, min(self._slots) * SLOT_SECONDS - time.monotonic()) if self._slots else None

    def _pass_dates(self) -> bool:
        """Whether any date has come; those that have are dropped."""
        now = time.monotonic()
        with self._slots_lock:
            passed = {slot for slot in self._slots if slot * SLOT_SECONDS <= now}
            self._slots -= passed
        return bool(passed)


def _enqueue_drain(redis: Redis) -> None:
    try:
        queue = Queue(QUEUE_NAME, connection=redis)
        if queue.count >= ENOUGH_JOBS:
            return  # each of them, when it begins, sees what was committed before now
        queue.enqueue(
            DRAIN_JOB,
            job_timeout=JOB_TIMEOUT_SECONDS,
            result_ttl=0,  # it says nothing, and would be kept for each ring
            failure_ttl=FAILURE_SECONDS,
            description="drain",
        )
    except RedisError:
        redis.delete(BELL_KEY)
        raise


def send_probe(link: RedisLink) -> str:
    """Put before all other jobs one that only says that a worker took it; returns its token. Raises RedisAway."""
    token = uuid4().hex
    link.use(
        lambda redis: Queue(QUEUE_NAME, connection=redis).enqueue(
            PROBE_JOB,
            token,
            at_front=True,
            job_timeout=PROBE_SECONDS,
            ttl=PROBE_SECONDS,
            result_ttl=0,
            failure_ttl=PROBE_SECONDS,
            description="probe",
        )
    )
    return token


def answer_probe(link: RedisLink, token: str, process: str) -> None:
    """The worker's side: ``process`` took it. Raises RedisAway."""
    link.use(lambda redis: redis.set(PROBE_KEY.format(token=token), process, ex=PROBE_SECONDS))


def take_probe(link: RedisLink, token: str) -> str | None:
    """Which process took the probe; None while none has. Raises RedisAway."""
    found = link.use(lambda redis: redis.get(PROBE_KEY.format(token=token)))
    return found.decode() if isinstance(found, bytes) else None


def count_workers(link: RedisLink) -> int:
    """How many workers have registered and not been missed since. Raises RedisAway."""
    return link.use(lambda redis: Worker.count(queue=Queue(QUEUE_NAME, connection=redis)))


def read_schedule(link: RedisLink) -> dict[str, datetime]:
    """The entries of our schedule that rq-scheduler holds, with their next run. Raises RedisAway."""
    found: Any = link.use(lambda redis: redis.zrange(SCHEDULED_KEY, 0, -1, withscores=True))
    entries = ((name.decode(), at) for name, at in found)
    return {name: datetime.fromtimestamp(at, UTC) for name, at in entries if name.startswith(SCHEDULE_PREFIX)}
