"""What a run writes: a row a fault, as JSON to be merged, and as the table of `docs/reliability.md`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- chaos: begin -->", "<!-- chaos: end -->"
NOT_RUN = "NOT RUN"


@dataclass
class Row:
    """One fault's row. ``not_run`` is the reason why this machine cannot make it; then all else says nothing."""

    fault: str
    about: str
    not_run: str | None = None
    events: int = 0
    effects: int = 0
    lost: int = 0
    doubled: int = 0
    disorder: int = 0
    aside: list[str] = field(default_factory=list)
    recovered_seconds: float | None = None
    questions: int = 0
    p99_seconds: float = 0.0
    longest_seconds: float = 0.0
    cut: int = 0
    bad_answers: int = 0
    half_done: int = 0
    missed_bounds: int = 0
    balanced_seconds: int = 0
    unbalanced_seconds: int = 0
    away_seconds: int = 0
    took_seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    violations: list[dict[str, str]] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether every promise was kept, or nothing was tried."""
        broken = self.lost + self.doubled + self.disorder + self.bad_answers + self.half_done + self.missed_bounds
        broken += self.unbalanced_seconds
        return self.not_run is not None or (broken == 0 and self.recovered_seconds is not None)


HEAD = (
    "fault", "events", "effects", "lost", "doubled", "out of order", "set aside", "recovered after", "questions",
    "p99", "longest", "cut off", "ledger",
)  # fmt: skip


def render(rows: Sequence[Row]) -> str:
    """The table for a terminal and for Markdown alike."""
    lines = [_cells(row) for row in rows]
    done = [row for row in rows if row.not_run is None]
    lines.append(
        [
            *("**all**", f"{sum(row.events for row in done):,}", f"{sum(row.effects for row in done):,}"),
            *(str(sum(row.lost for row in done)), str(sum(row.doubled for row in done))),
            *(str(sum(row.disorder for row in done)), str(sum(len(row.aside) for row in done)), ""),
            *(f"{sum(row.questions for row in done):,}", ""),
            f"{max((row.longest_seconds for row in done), default=0):.2f} s",
            str(sum(row.cut for row in done)),
            _ledger(
                sum(row.balanced_seconds for row in done),
                sum(row.unbalanced_seconds for row in done),
            ),
        ]
    )
    widths = [max(len(line[column]) for line in [list(HEAD), *lines]) for column in range(len(HEAD))]

    def write(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"

    return "\n".join([write(HEAD), "|" + "|".join("-" * (width + 2) for width in widths) + "|", *map(write, lines)])


def _cells(row: Row) -> list[str]:
    if row.not_run is not None:
        return [row.fault, f"{NOT_RUN}: {row.not_run}", *[""] * (len(HEAD) - 2)]
    recovered = "never" if row.recovered_seconds is None else f"{row.recovered_seconds:.1f} s"
    return [
        *(row.fault, f"{row.events:,}", f"{row.effects:,}", str(row.lost), str(row.doubled), str(row.disorder)),
        *(str(len(row.aside)), recovered, f"{row.questions:,}"),
        *(f"{row.p99_seconds:.2f} s", f"{row.longest_seconds:.2f} s", str(row.cut)),
        _ledger(row.balanced_seconds, row.unbalanced_seconds),
    ]


def _ledger(balanced: int, unbalanced: int) -> str:
    return f"{balanced:,} of {balanced + unbalanced:,} s"


def save(path: Path, facts: dict[str, Any], rows: Sequence[Row]) -> None:
    """One run, to be merged with others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"facts": facts, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")


def load(paths: Sequence[Path]) -> tuple[list[dict[str, Any]], list[Row]]:
    """Several runs' facts and rows; of a fault that was run twice the later file's row stands."""
    facts, rows = [], {}
    for path in paths:
        run = json.loads(path.read_text())
        facts.append(run["facts"])
        for row in run["rows"]:
            rows[row["fault"]] = Row(**row)
    return facts, list(rows.values())


def write_into(path: Path, text: str) -> None:
    """Put the text between the two marks of a document. Raises ValueError when they are not there."""
    before, begin, rest = path.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path} has no place for the table")
    path.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


def tell(row: Row) -> str:
    """One line when a fault is over."""
    if row.not_run is not None:
        return f"· {row.fault}: {NOT_RUN}: {row.not_run}"
    recovered = "never" if row.recovered_seconds is None else f"{row.recovered_seconds:.1f} s"
    verdict = "ok" if row.is_clean else "BROKEN"
    notes = f" ({'; '.join(row.notes)})" if row.notes else ""
    return (
        f"· {row.fault}: {verdict}: {row.events} events, {row.effects} effects, {row.lost} lost, {row.doubled} doubled,"
        f" {row.disorder} out of order, recovered after {recovered}, {row.questions} questions"
        f" (p99 {row.p99_seconds:.2f} s, longest {row.longest_seconds:.2f} s, {row.cut} cut, {row.bad_answers} bad),"
        f" books wrong in {row.unbalanced_seconds} of {row.balanced_seconds + row.unbalanced_seconds} s;"
        f" {row.took_seconds:.0f} s{notes}"
    )
