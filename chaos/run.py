"""Runs faults one after the other, each under load, and makes a row of each.

Owns the order of things: load and fault begin, the load ends, the fault ends, all is awaited, then judged.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace

from chaos import effects
from chaos.house import House, Plan
from chaos.judge import BOUND, DISORDER, DOUBLED, HALF, LATE, LATE_WRITE, LOST, Findings, await_done, judge, left_over
from chaos.people import Numbers
from chaos.stage import FULL, SHORT, Fault, Stage
from chaos.table import Row
from chaos.traffic import Traffic
from chaos.watcher import Watcher
from sandbox.house import ROOT

MOST_KEPT = 100
SHORT_BUSINESSES = 3
LATER_SECONDS = 3.0  # what happens a second time may happen a little later
_NETS = """
SELECT count(*) FROM webhook_delivery_log
WHERE type = 'appointment.finish' AND status NOT IN ('processed', 'skipped', 'dead')
"""


@dataclass(frozen=True)
class Options:
    """How to run. ``events`` replaces the faults' own numbers."""

    short: bool = False
    seed: int = 1
    rate: float = 40.0
    events: int | None = None
    stories: int = 3


@dataclass
class Look:
    """A fault that was judged, to be looked at again before its house goes: what is done twice may be done late."""

    stage: Stage
    row: Row


def run(
    faults: Sequence[Fault], options: Options, *, last: Callable[[House, Numbers], None] = lambda *_: None
) -> Iterator[Row]:
    """A row for each fault, completed when the house it shares with others of its group goes.

    ``last`` is called with the last house before it goes, and may do with it what it likes.
    """
    numbers = Numbers(first=options.seed * 1_000_000)
    houses = _by_house(faults, options)
    for shared in houses:
        possible = [fault for fault in shared if fault.needs() is None]
        looks: list[Look] = []
        with ExitStack() as closing:
            house = closing.enter_context(House(plan_of(shared[0], options))) if possible else None
            for fault in shared:
                reason = fault.needs()
                if house is None or reason is not None:
                    yield Row(fault.name, fault.about, not_run=reason or "not here")
                else:
                    looks.append(run_one(fault, house, numbers, options))
                    yield looks[-1].row
            if house is not None:
                look_again(house, looks, options)
                if shared is houses[-1]:
                    last(house, numbers)


def look_again(house: House, looks: Sequence[Look], options: Options) -> None:
    """When also the nets that were planned for later have found nothing to do: is all still as it was?"""
    _await_nets(house)
    time.sleep(LATER_SECONDS)
    for look in looks:
        seen = effects.observe(house.world, look.stage.businesses)
        findings = judge(house, look.stage.businesses, look.stage.books, seen)
        findings.violations += look.stage.findings.violations
        if len(findings.violations) > len(look.row.violations):
            print(f"{look.row.fault}: more was found at the second look")
            _tell(house, look.row.fault, findings, options)
        _enter(look.row, look.stage, findings, seen.seen)


def plan_of(fault: Fault, options: Options) -> Plan:
    """The fault's house, at the run's speed."""
    return replace(fault.plan, settings=SHORT if options.short else (*FULL, *fault.plan.settings))


def run_one(fault: Fault, house: House, numbers: Numbers, options: Options) -> Look:
    """Load the house, break it, mend it, wait, judge. A violation's story is printed."""
    began = time.monotonic()
    rng = random.Random(f"{options.seed}:{fault.name}")
    events = options.events or ((fault.in_short or 150) if options.short else fault.events)
    businesses = house.open(SHORT_BUSINESSES if options.short else fault.businesses, numbers, fault.name)
    webs = [(house.web_host(name), port) for name, port in house.web_ports.items()]
    traffic = Traffic(webs, house.base_url, businesses, numbers, rng, options.rate, fault.mix)
    stage = Stage(house, rng, numbers, options.short, businesses, traffic)
    with Watcher(house.postgres.superuser_url("voicedesk")) as watcher:
        traffic.greet()
        with fault.disturb(stage):
            fault.drive(stage, events)
        mended = time.monotonic()
        traffic.finish()
        waited = await_done(house, businesses, seconds=fault.recovery_seconds)
        recovered = None if waited is None else time.monotonic() - mended
        for look in stage.afterwards:
            look(recovered)
    if recovered is None:
        stage.notes += [f"left: {line}" for line in left_over(house, businesses)[:MOST_KEPT]]
    if traffic.books.refused:
        stage.notes.append(f"{traffic.books.refused} posts got no 2xx, and were sent again")
    seen = effects.observe(house.world, businesses)
    findings = judge(house, businesses, traffic.books, seen)
    findings.violations += stage.findings.violations
    _tell(house, fault.name, findings, options)
    row = Row(
        fault.name,
        fault.about,
        recovered_seconds=recovered,
        balanced_seconds=watcher.balanced,
        unbalanced_seconds=len(watcher.differences),
        away_seconds=watcher.away,
        took_seconds=time.monotonic() - began,
    )
    _enter(row, stage, findings, seen.seen)
    return Look(stage, row)


def _tell(house: House, fault: str, findings: Findings, options: Options) -> None:
    for violation in findings.violations[: options.stories]:
        print(f"\n{fault}: {violation.kind}: {violation.subject}: {violation.told}", flush=True)
        if violation.kind != BOUND:  # that is of the house, and no event
            print(story(house, violation.subject), flush=True)


def story(house: House, subject: str) -> str:
    """Everything the product itself knows of an event, a call or a number."""
    words = [sys.executable, "-m", "flask", "--app", "wsgi", "story", subject]
    done = subprocess.run(
        words, cwd=ROOT, env=house.processes.environment, capture_output=True, text=True, timeout=120, check=False
    )
    return done.stdout.strip() or done.stderr.strip()


def _await_nets(house: House) -> None:
    """The nets that were planned for later find that there is nothing to do, or do it twice."""
    deadline = time.monotonic() + 30
    while house.query(_NETS)[0][0] and time.monotonic() < deadline:
        time.sleep(0.25)


def _by_house(faults: Sequence[Fault], options: Options) -> list[list[Fault]]:
    """Those that can share a house, in their order; in a full run only those of one group do."""
    shared: list[list[Fault]] = []
    for fault in faults:
        before = shared[-1][0] if shared else None
        same_group = before is not None and (options.short or before.group == fault.group)
        if before is not None and same_group and plan_of(before, options) == plan_of(fault, options):
            shared[-1].append(fault)
        else:
            shared.append([fault])
    return shared


def _enter(row: Row, stage: Stage, findings: Findings, seen: int) -> None:
    books = stage.books
    row.events, row.effects, row.notes, row.aside = books.acknowledged, seen, stage.notes, findings.aside
    row.lost, row.doubled = findings.count(LOST) + findings.count(LATE_WRITE), findings.count(DOUBLED)
    row.disorder, row.half_done = findings.count(DISORDER), findings.count(HALF)
    row.bad_answers, row.missed_bounds = findings.count(LATE), findings.count(BOUND)
    row.questions, row.cut = len(books.questions), sum(question.cut for question in books.questions)
    row.p99_seconds, row.longest_seconds = books.quantile(0.99), books.quantile(1.0)
    row.violations = [asdict(violation) for violation in findings.violations[:MOST_KEPT]]
