"""What a run came to, for programs and for people: a file of figures, a table in the terminal and one in the docs.

Owns the writing. A figure that was not run is told as NOT RUN; nothing of an earlier run is kept.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import plots
from benchmarks.figures import Figure, Spread

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
UNPUBLISHED = HERE.parent / ".bench" / "results.json"


@dataclass(frozen=True, slots=True)
class Page:
    """Where a run is published: its figures, the page that has a place for its table, between two marks, and how its
    picture is drawn, if it has one."""

    results: Path
    text: Path
    mark: str
    picture: Path | None = None
    draw: Callable[[Sequence[Figure], Path], None] = plots.draw_margins


USUAL = Page(HERE / "results.json", DOCS / "performance.md", "measured", DOCS / "performance.svg")
LARGE = Page(HERE / "results-large.json", DOCS / "performance.md", "large")
SCALING = Page(HERE / "results-scaling.json", DOCS / "scaling.md", "measured", DOCS / "scaling.svg", plots.draw_growth)
HEADINGS = ("what", "Voicedesk", "beside", "reference", "ratio (spread)", "asked", "")


def write(figures: Sequence[Figure], *, rounds: int, page: Page | None) -> None:
    """The figures, and the table in its page; without a ``page`` only the figures, where nobody publishes them."""
    document = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "rounds": rounds,
        "ratios": {figure.name: round(figure.ratio.median, 3) for figure in figures if figure.ratio},
        "figures": [figure.plain() for figure in figures],
    }
    place = page.results if page else UNPUBLISHED
    place.parent.mkdir(exist_ok=True)
    place.write_text(json.dumps(document, indent=1) + "\n")
    if page is not None:
        begin, end = f"<!-- {page.mark}: begin -->", f"<!-- {page.mark}: end -->"
        head, _, rest = page.text.read_text().partition(begin)
        tail = rest.partition(end)[2]
        told = f"{document['at']}, {document['machine']}, median of {rounds} rounds.\n\n{as_markdown(figures)}"
        page.text.write_text(f"{head}{begin}\n{told}\n{end}{tail}")
        if page.picture is not None:
            page.draw(figures, page.picture)


def published_ratios() -> dict[str, float]:
    """The ratios of the last run that was published, by name; none where there is none."""
    if not USUAL.results.exists():
        return {}
    ratios: dict[str, float] = json.loads(USUAL.results.read_text())["ratios"]
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
