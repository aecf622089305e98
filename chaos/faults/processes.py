"""Processes of the product killed and stopped at random moments, again and again, and restarted in turn."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator, Sequence

from chaos.house import SCHEDULERS, WEBS, WORKERS, House
from chaos.stage import Disturbance, Fault, Stage
from sandbox.children import family_of, signal_all
from sandbox.house import is_ready

BACK_SECONDS = 60.0
EACH = {"web": WEBS, "worker": WORKERS, "scheduler": SCHEDULERS}


def _stopping(names: Sequence[str], number: signal.Signals, between: tuple[float, float]) -> Disturbance:
    @contextlib.contextmanager
    def disturb(stage: Stage) -> Iterator[None]:
        house = stage.house
        if names is SCHEDULERS and SCHEDULERS[1] not in house.processes.names():
            house.start(SCHEDULERS[1])

        def stop_one() -> None:
            name = stage.rng.choice([name for name in names if house.processes.is_running(name)] or list(names))
            if name in WEBS:
                await_web(house, _other(name))  # one of two: with none left nobody could take anything
            # gunicorn is a master and its worker: now all of it is killed, now the one that holds the requests.
            if number != signal.SIGKILL:
                house.processes.signal(name, number, alone=True)
            elif name in WEBS and stage.rng.random() < 0.5:
                _kill_child(house, name)
            else:
                house.processes.kill(name)

        with stage.repeating(stop_one, between=between):
            yield
        for name in names:
            if name in WEBS:
                await_web(house, name)

    return disturb


def _kill_child(house: House, name: str) -> None:
    signal_all(family_of(house.processes.pid(name))[1:], signal.SIGKILL)


def _other(name: str) -> str:
    return WEBS[1 - WEBS.index(name)]


def await_web(house: House, name: str) -> None:
    """Wait until this web process answers. Raises RuntimeError."""
    deadline = time.monotonic() + BACK_SECONDS
    while not is_ready(house.web_ports[name], host=house.web_host(name)):
        if time.monotonic() > deadline:
            raise RuntimeError(f"{name} does not come back")
        time.sleep(0.1)


@contextlib.contextmanager
def _rolling(stage: Stage) -> Iterator[None]:
    """A deploy: one after the other is told to leave, and the next only when it is back."""
    house, order = stage.house, [*WEBS, *WORKERS, SCHEDULERS[0]]
    turn = 0

    def restart_next() -> None:
        nonlocal turn
        name = order[turn % len(order)]
        turn += 1
        before = house.processes.pid(name)
        house.processes.signal(name, signal.SIGTERM, alone=True)
        deadline = time.monotonic() + BACK_SECONDS
        while house.processes.pid(name) == before or not house.processes.is_running(name):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{name} does not leave")
            time.sleep(0.1)
        if name in WEBS:
            await_web(house, name)

    with stage.repeating(restart_next, between=(0.5, 1.5), at_least=len(order)):
        yield


def _fault(verb: str, kind: str, number: signal.Signals, *, in_short: int | None = None) -> Fault:
    between = (1.5, 6.0) if number == signal.SIGKILL else (3.0, 8.0)
    return Fault(
        f"{kind}-{verb}",
        "processes",
        f"{number.name} to a {kind} process at random moments, again and again",
        _stopping(EACH[kind], number, between),
        events=4_000,
        in_short=in_short,
    )


FAULTS = (
    _fault("killed", "web", signal.SIGKILL, in_short=120),
    _fault("killed", "worker", signal.SIGKILL, in_short=120),
    _fault("killed", "scheduler", signal.SIGKILL),
    _fault("stopped", "web", signal.SIGTERM),
    _fault("stopped", "worker", signal.SIGTERM),
    _fault("stopped", "scheduler", signal.SIGTERM),
    Fault("rolling-restart", "processes", "every process restarted in turn, as a deploy does", _rolling, events=6_000),
)
