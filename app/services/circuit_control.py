"""Circuits by hand: how each stands, and closing one that somebody knows to be well again.

Owns what an operator is told when a reset could not reach the other processes, and waking what waited.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from app.errors import InvalidInput, TemporaryFailure
from app.integrations.breaker import CIRCUITS, POLL_SECONDS, circuits
from app.models.attempts import wake_waiting
from app.observability.logging import get_logger
from app.services.turns import rate_of

if TYPE_CHECKING:
    from app.services.platform import Platform

CIRCUIT_NAMES = CIRCUITS

log = get_logger(__name__)


def show(platform: Platform) -> list[dict[str, Any]]:
    """Every circuit: ``name``, ``state``, ``failures`` of ``opens_after``, ``retry_after_seconds`` while open.

    Raises TemporaryFailure, because what this process alone knows would be a guess. Without Redis each
    process has its own, and this one is new: InvalidInput.
    """
    _refuse_guess(platform)
    circuits.watch()
    circuits.refresh()
    return [
        {
            "name": circuit.name,
            "state": circuit.state,
            "failures": circuit.failures,
            "opens_after": platform.settings.circuit_failures,
            "retry_after_seconds": round(circuit.retry_after.total_seconds(), 1),
        }
        for circuit in circuits.states()
    ]


def reset(platform: Platform, name: str | None, *, actor: str) -> list[dict[str, Any]]:
    """Close one circuit, or all, in every process (within a second), and wake what waited for it.

    Returns all as they then are, with ``woken`` deliveries where one was closed. Raises as ``show`` does,
    and ConfigurationError for a name that no circuit has.
    """
    _refuse_guess(platform)
    woken = {}
    for circuit in [name] if name else CIRCUITS:
        with platform.database.transaction(system=True) as session:
            # Before the reset, or this process's own listener would wake them uncounted; due when all have heard.
            woken[circuit] = wake_waiting(
                session, circuit, per_second=rate_of(platform.settings, circuit), after_seconds=POLL_SECONDS
            )
        log.info("circuit.reset", circuit=circuit, actor=actor, deliveries=woken[circuit])
    circuits.reset(name)
    platform.bell.ring_now()
    return [{**row, "woken": woken.get(row["name"])} for row in show(platform)]


def _refuse_guess(platform: Platform) -> None:
    if not platform.redis.configured:
        raise InvalidInput(
            "without REDIS_URL each process keeps its own circuits; /health/queue of a web process shows that process's"
            " (restarting it closes them)"
        )
    if not platform.redis_answers():
        raise TemporaryFailure("Redis does not answer, so the circuits of the other processes cannot be reached")
