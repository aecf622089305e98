"""What a run came to, for programs and for people: results.json, a table in the terminal, docs/performance.md.

Owns the writing. A figure that was not run is told as NOT RUN; nothing of an earlier run is kept.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.figures import Figure, Spread

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
UNPUBLISHED = HERE.parent / ".bench" / "results.json"
PAGE = HERE.parent / "docs" / "performance.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
HEADINGS = ("what", "Voicedesk", "beside", "reference", "ratio (spread)", "asked", "")


def write(figures: Sequence[Figure], *, rounds: int, published: bool) -> None:
    """``results.json`` and the table in docs/performance.md; of a run that is not ``published`` only the figures."""
    document = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "rounds": rounds,
        "ratios": {figure.name: round(figure.ratio.median, 3) for figure in figures if figure.ratio},
        "figures": [figure.plain() for figure in figures],
    }
    place = RESULTS if published else UNPUBLISHED
    place.parent.mkdir(exist_ok=True)
    place.write_text(json.dumps(document, indent=1) + "\n")
    if published:
        text = PAGE.read_text()
        head, _, rest = text.partition(BEGIN)
        tail = rest.partition(END)[2]
        told = f"{document['at']}, {document['machine']}, median of {rounds} rounds.\n\n{as_markdown(figures)}"
        PAGE.write_text(f"{head}{BEGIN}\n{told}\n{END}{tail}")


def published_ratios() -> dict[str, float]:
    """The ratios of the last run that was published, by name; none where there is none."""
    if not RESULTS.exists():
        return {}
    ratios: dict[str, float] = json.loads(RESULTS.read_text())["ratios"]
    return ratios


def as_markdown(figures: Sequence[Figure]) -> str:
    """The figures as a table of Markdown."""
    rows = [HEADINGS, ("---",) * len(HEADINGS), *(_row(figure) for figure in figures)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def as_table(figures: Sequence[Figure]) -> str:
    """The figures for a terminal."""
    rows = [HEADINGS, *(_row(figure) for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def _row(figure: Figure) -> tuple[str, ...]:
    beside = ", ".join(f"{name} {value:,.1f}" for name, value in figure.beside.items())
    asked = ""
    if figure.wanted is not None:
        asked = f"{'≥' if figure.at_least else '≤'} {figure.wanted:g}{' x' if figure.reference_name else ''}"
    ratio = f"{figure.ratio.median:.2f} ({figure.ratio.least:.2f} to {figure.ratio.most:.2f})" if figure.ratio else ""
    verdict = {True: "holds", False: "NOT REACHED", None: ""}[figure.holds]
    return (
        figure.what,
        _value(figure.ours, figure.unit) if figure.ours else f"NOT RUN: {figure.not_run}",
        beside,
        f"{_value(figure.reference, figure.unit)} {figure.reference_name}"
        if figure.reference
        else (f"NOT RUN: {figure.not_run}" if figure.reference_name else ""),
        ratio,
        asked,
        verdict,
    )


def _value(spread: Spread, unit: str) -> str:
    digits = 0 if spread.median >= 100 else 2 if spread.median >= 1 else 4
    return f"{spread.median:,.{digits}f} {unit}"
