"""The child's side of isolation: a process that forks once for each attempt, and the attempt in the fork.

Owns the forks, and the reading of the lane that the parent process holds: that one renews its lease, decides
what comes next and gives it back (``delivery.py``, ``isolation.py``). The process that forks has imported
everything, and has no thread and no connection that a fork could share: it touches neither database nor Redis.
"""

from __future__ import annotations

import json
import os
import select
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from uuid import UUID

from app.errors import VoicedeskError
from app.models.lanes import read_held
from app.observability.logging import get_logger
from app.services.delivery import deliver_suspect_here
from app.services.isolation import Alone

if TYPE_CHECKING:
    from app.services.platform import Platform

IDLE_SECONDS = 60.0  # with nothing to do it ends: most processes never need it again
LOOK_SECONDS = 0.02  # at what runs

log = get_logger(__name__)


def serve(platform: Platform, *, orders: int, answers: int) -> int:
    """Fork for each order that is read, a line each, and tell of each fork's beginning and end.

    Returns in a fork with its exit code, and here with 0 when nobody asks any more. The caller ends the process.
    """
    running: dict[int, int] = {}
    reading = _Orders(orders)
    while not reading.ended or running:
        for order in reading.next(LOOK_SECONDS if running else IDLE_SECONDS):
            number = order.pop("number")
            try:
                pid = os.fork()
            except OSError:
                _tell(answers, number=number, exit_code=None)
                continue
            if pid == 0:
                _let_go(orders, answers)
                return _attempt(platform, order).value
            running[pid] = number
            _tell(answers, number=number, pid=pid)
        if not running and reading.idle:
            break
        for pid in list(running):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                _tell(answers, number=running.pop(pid), exit_code=os.waitstatus_to_exitcode(status))
    return 0


def attempt(platform: Platform, *, org_id: UUID, lane_key: str, token: int, delivery_id: int) -> bool:
    """Whether the delivery is finished; False also when the lane has passed to another process meanwhile."""
    with platform.database.transaction(system=True) as session:
        lane = read_held(session, org_id, lane_key, token)
    return lane is not None and deliver_suspect_here(platform, lane, delivery_id)


def _attempt(platform: Platform, order: dict[str, Any]) -> Alone:
    try:
        finished = attempt(
            platform,
            org_id=UUID(order["org_id"]),
            lane_key=order["lane_key"],
            token=int(order["token"]),
            delivery_id=int(order["delivery_id"]),
        )
    except VoicedeskError as error:
        log.warning("isolated.refused", error_code=error.code)
        return Alone.NOT_FINISHED
    return Alone.FINISHED if finished else Alone.NOT_FINISHED


class _Orders:
    """What is asked, line by line, until nobody can ask any more."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._rest = b""
        self.ended = False
        self.idle = False

    def next(self, within_seconds: float) -> Iterator[dict[str, Any]]:
        """The orders that are there, or come in time."""
        asked = [] if self.ended else [self._descriptor]
        found = select.select(asked, [], [], within_seconds)[0]
        self.idle = not found
        if not found:
            return
        read = os.read(self._descriptor, 65536)
        self.ended = not read
        *lines, self._rest = (self._rest + read).split(b"\n")
        yield from map(json.loads, lines)


def _let_go(*descriptors: int) -> None:
    """In a fork: its parent's pipes end with its parent, not with it."""
    with open(os.devnull, "r+b") as nothing:
        for descriptor in descriptors:
            os.dup2(nothing.fileno(), descriptor)


def _tell(answers: int, **told: int | None) -> None:
    os.write(answers, json.dumps(told).encode() + b"\n")
