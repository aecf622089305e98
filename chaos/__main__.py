"""`python -m chaos`: run the faults, print the table, and exit 1 with the first one that breaks a promise."""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from chaos import table
from chaos.faults import FAULTS, GROUPS
from chaos.house import House
from chaos.people import Numbers
from chaos.proving import IN_SHORT, Proof, prove, prove_in
from chaos.run import Options, run
from chaos.sabotage import SABOTAGES

DOCUMENT = Path("docs/reliability.md")
RATE, SHORT_RATE = 40.0, 40.0


def main() -> int:
    """Returns the exit code."""
    options = _arguments().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that mounts and namespaces go too
    if options.list:
        for fault in FAULTS:
            short = "short" if fault.in_short else ""
            print(f"{fault.group:<16}{fault.name:<24}{fault.events:>7,}  {short:<6}{fault.about}")
        return 0
    if options.sabotage:
        return _prove(list(SABOTAGES) if "all" in options.sabotage else options.sabotage, options)
    if options.merge:
        _, rows = table.load(options.merge)
        return _conclude(rows, options)
    chosen = [
        fault
        for fault in FAULTS
        if (not options.only or fault.name in options.only)
        and (not options.group or fault.group in options.group)
        and (not options.short or options.only or fault.in_short)
        and (not fault.apart or options.only or options.group)
    ]
    unknown = set(options.only) - {fault.name for fault in FAULTS}
    if unknown or not chosen:
        print(f"no such fault: {', '.join(sorted(unknown)) or 'none chosen'}; --list tells them", file=sys.stderr)
        return 2
    began, rows = time.monotonic(), []
    how = Options(
        short=options.short,
        seed=options.seed,
        rate=options.rate or (SHORT_RATE if options.short else RATE),
        events=options.events,
    )
    proofs: list[Proof] = []
    proving = IN_SHORT if options.short and not options.only else ()

    def prove_it(house: House, numbers: Numbers) -> None:
        _tell_proofs(prove_in(house, proving, numbers, how), proofs)

    for row in run(chosen, how, last=prove_it):
        rows.append(row)
        print(table.tell(row), flush=True)
        if options.out:
            facts = {"seed": how.seed, "python": platform.python_version(), "cores": os.cpu_count(), "short": how.short}
            table.save(options.out, {**facts, "seconds": round(time.monotonic() - began)}, rows)
        if not row.is_clean and not options.go_on:
            break
    code = _conclude(rows, options)
    return code or (0 if all(proof.found for proof in proofs) else 1)


def _tell_proofs(proofs: Iterable[Proof], told: list[Proof]) -> None:
    for proof in proofs:
        told.append(proof)
        print(proof, flush=True)


def _prove(names: list[str], options: argparse.Namespace) -> int:
    """0 when each was caught."""
    proofs: list[Proof] = []
    _tell_proofs(
        prove(names, Options(seed=options.seed, rate=options.rate or SHORT_RATE, events=options.events)), proofs
    )
    print(f"{sum(proof.found > 0 for proof in proofs)} of {len(proofs)} broken guarantees were caught")
    return 0 if all(proof.found for proof in proofs) else 1


def _conclude(rows: list[table.Row], options: argparse.Namespace) -> int:
    print("\n" + table.render(rows))
    if options.write:
        table.write_into(DOCUMENT, table.render(rows))
    return 0 if all(row.is_clean for row in rows) else 1


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--list", action="store_true", help="tell the faults, and run none")
    parser.add_argument("--only", action="append", default=[], metavar="FAULT", help="this one; may be repeated")
    parser.add_argument("--group", action="append", default=[], choices=GROUPS, help="all of this group")
    parser.add_argument("--short", action="store_true", help="a few faults with few events, at most three minutes")
    parser.add_argument("--events", type=int, help="acknowledged events for each fault, instead of its own number")
    parser.add_argument("--seed", type=int, default=1, help="the same seed, the same load and the same moments")
    parser.add_argument("--rate", type=float, help=f"events a second ({RATE:.0f}; short {SHORT_RATE:.0f})")
    parser.add_argument(
        "--sabotage",
        action="append",
        default=[],
        choices=[*SABOTAGES, "all"],
        help="break this guarantee on purpose; exit 0 when the suite catches it",
    )
    parser.add_argument("--go-on", action="store_true", help="run the others although one has failed")
    parser.add_argument("--out", type=Path, help="write the rows there, to be merged with others")
    parser.add_argument("--merge", type=Path, nargs="+", help="run nothing: one table from what runs wrote")
    parser.add_argument("--write", action="store_true", help=f"put the table into {DOCUMENT}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
