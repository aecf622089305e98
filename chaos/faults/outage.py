"""A provider's outage of five minutes, and the way back: waiting work is done soon, and in no burst.

Owns the bounds of issue 5: three failures open the circuit, one probe every 30 s, all waiting work done two
minutes after recovery, and not one 429 of a Twilio that takes five texts a second of one sender.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime

from app.config import Settings
from chaos.house import Plan
from chaos.judge import BOUND
from chaos.stage import Fault, Stage
from sandbox.standins.twilio_delivery import DEFAULT_SETTINGS

OUTAGE_SECONDS, SHORT_SECONDS = 300.0, 20.0
RECOVERY_SECONDS = 120.0
SENDER_RATE = 5
OPERATION = "create_message"
PACE = "twilio_texts_per_second"


@contextlib.contextmanager
def _outage(stage: Stage) -> Iterator[None]:
    world = stage.house.world
    world.twilio_settings(sender_rate=SENDER_RATE)
    world.fault("twilio", "error_500")
    began = datetime.now(UTC).isoformat()
    try:
        yield
    finally:
        ended = datetime.now(UTC).isoformat()
        world.clear_faults("twilio")
    stage.afterwards.append(lambda recovered: _look(stage, began, ended, recovered))


def _drive(stage: Stage, _events: int) -> None:
    """One text a second, all of one organization and so of one sender."""
    began = time.monotonic()
    seconds = SHORT_SECONDS if stage.short else OUTAGE_SECONDS
    for number in range(int(seconds)):
        time.sleep(max(0.0, began + number - time.monotonic()))
        stage.traffic.send_text(stage.businesses[0])
    time.sleep(max(0.0, began + seconds - time.monotonic()))


def _look(stage: Stage, began: str, ended: str, recovered: float | None) -> None:
    world, settings = stage.house.world, stage.house.settings
    try:
        asked = world.requests("twilio", OPERATION)
    finally:
        world.twilio_settings(sender_rate=None)
    during = [one for one in asked if began <= one["at"] <= ended]
    refused = Counter(one["status"] for one in asked if one["at"] >= began)[429]
    lasted = (datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds()
    # Another process sees a circuit's opening a second late: each of the four may have had one more under way.
    most = settings.circuit_failures + 4 + int(lasted / settings.circuit_open_seconds) + 1
    stage.notes.append(f"{len(during)} requests in {lasted:.0f} s of outage (at most {most}), {refused} answers of 429")
    if len(during) > most:
        stage.findings.add(BOUND, "twilio_sms", f"{len(during)} requests were made during the outage, at most {most}")
    if refused:
        stage.findings.add(
            BOUND, "twilio_sms", f"{refused} texts were refused because our own catching up was too fast"
        )
    if recovered is None or recovered > RECOVERY_SECONDS:
        stage.findings.add(
            BOUND, "twilio_sms", f"waiting work was done after {recovered} s, {RECOVERY_SECONDS} allowed"
        )


def _missing() -> str | None:
    paced = "sender_rate" in DEFAULT_SETTINGS and PACE in Settings.model_fields
    return None if paced else "texts have no pace here yet"


FAULTS = (
    Fault(
        "twilio-outage",
        "outage",
        "Twilio away for five minutes, one text a second offered, five a second allowed",
        _outage,
        events=int(OUTAGE_SECONDS),
        plan=Plan(settings=((PACE, SENDER_RATE * 0.8), ("circuit_open_seconds", 30.0)) if _missing() is None else ()),
        needs=_missing,
        drive=_drive,
    ),
)
