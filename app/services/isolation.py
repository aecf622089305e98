"""A process of its own for a delivery that may kill the process it runs in.

Owns the child process, its time limit, and its end with a parent that leaves. The lane stays with the
parent, which keeps renewing it; the child only makes the attempt.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from app.config import Settings, environment_of
from app.models.lanes import ClaimedLane
from app.observability.logging import get_logger

ROOT = Path(__file__).resolve().parents[2]  # where wsgi.py is, wherever this process was started

log = get_logger(__name__)
_running: set[subprocess.Popen[bytes]] = set()


def run_isolated(settings: Settings, lane: ClaimedLane, delivery_id: int) -> bool:
    """Attempt the delivery in a child process; True when the child says that it is finished.

    A child that dies or outstays its limit is killed, and the attempt stays without an end, which counts.
    """
    command = [
        *(sys.executable, "-m", "flask", "--app", "wsgi", "deliver-isolated"),
        *(str(lane.org_id), lane.lane_key, str(lane.token), str(delivery_id)),
    ]
    child = subprocess.Popen(  # noqa: S603 - our own command; its arguments come from our own row
        command,
        cwd=ROOT,
        env=environment_of(settings),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,  # its log lines go where ours go
    )
    _running.add(child)
    try:
        exit_code = child.wait(timeout=settings.handler_limit_seconds)
    except subprocess.TimeoutExpired:
        log.error("isolated.overdue", delivery_id=delivery_id)
        return False
    finally:
        _running.discard(child)
        child.kill()  # nothing, when it has ended
        child.wait()
    if exit_code not in (0, 3):
        log.error("isolated.died", delivery_id=delivery_id, exit_code=exit_code)
    return exit_code == 0


def end_all() -> None:
    """Kill every child that runs: their lanes are given away, and whoever takes one must not find it at work."""
    for child in list(_running):
        child.kill()
