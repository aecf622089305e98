"""Twilio, Google and Vapi slow, hanging, refusing, and cutting the connection after having done the work."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from chaos.stage import Disturbance, Fault, Stage

SLOW_SECONDS = 3.0
KINDS = {
    "slow": f"answers after {SLOW_SECONDS:.0f} s",
    "hang": "never answers",
    "error_500": "answers 500",
    "throttle_429": "answers 429",
    "cut_after": "does the work and cuts the connection",
    "error_500_after": "does the work and answers 500",
}


def _switching(provider: str, kind: str) -> Disturbance:
    @contextlib.contextmanager
    def disturb(stage: Stage) -> Iterator[None]:
        """On and off, so that what fails also succeeds in between; on for most of the time."""
        world, on = stage.house.world, False

        def switch() -> None:
            nonlocal on
            if on:
                world.clear_faults(provider)
            else:
                world.fault(provider, kind, seconds=SLOW_SECONDS)
            on = not on

        switch()
        try:
            with stage.repeating(switch, between=(2, 4) if stage.short else (4, 12)):
                yield
        finally:
            world.clear_faults(provider)

    return disturb


def _name(provider: str, kind: str) -> str:
    return f"{provider}-{kind.removeprefix('error_').removeprefix('throttle_').replace('_', '-')}"


IN_SHORT = {("twilio", "cut_after"): 90, ("google", "error_500"): 90}
FAULTS = tuple(
    Fault(
        _name(provider, kind),
        "providers",
        f"{provider.capitalize()} {about}",
        _switching(provider, kind),
        events=900 if provider == "vapi" else 1_500,
        in_short=IN_SHORT.get((provider, kind)),
    )
    for provider in ("twilio", "google", "vapi")
    for kind, about in KINDS.items()
)
