"""Pictures of a run, beside its table: how far each figure lies from what was asked, and what grows with a size.

Owns the drawing. Takes figures as they were measured and judges nothing that they do not say themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from benchmarks.figures import Figure, Spread

SMALLEST = {"web processes": 1, "workers": 1, "organizations": 10}  # what sizes are counted in
GOOD, BAD, LINE = "#2a6f6b", "#b3452c", "#8a8f98"
# Text stays text, and the same figures make the same file.
mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "voicedesk", "font.family": "sans-serif", "font.size": 9})


def draw_margins(figures: Sequence[Figure], path: Path) -> None:
    """How many times better than asked each judged figure was, with its spread; what was not run is left out."""
    judged = [figure for figure in figures if figure.holds is not None]
    canvas = Canvas(figsize=(6, 0.5 * len(judged) + 0.8), layout="constrained")
    axes = canvas.subplots()
    for place, figure in enumerate(reversed(judged)):
        margin, colour = _margin(figure), GOOD if figure.holds else BAD
        axes.plot([margin.least, margin.most], [place, place], color=colour, linewidth=5, alpha=0.35)
        axes.plot([margin.median], [place], "o", color=colour, markersize=6)
        label = axes.text(0.01, place + 0.26, _label(figure), transform=axes.get_yaxis_transform(), fontsize=8.5)
        label.set_in_layout(False)  # or a long one would make the axes narrow
    axes.axvline(1, color=LINE, linewidth=1)
    _as_times(axes)
    axes.set_yticks([])
    axes.set_xlabel("times better than asked (median and spread of the rounds)")
    _save(canvas, path)


def draw_growth(figures: Sequence[Figure], path: Path) -> None:
    """Each question's ratio to its smallest size, by the size, which ends a figure's ``what``."""
    canvas = Canvas(figsize=(8.5, 3.6), layout="constrained")
    for axes, (unit, smallest) in zip(canvas.subplots(1, len(SMALLEST)), SMALLEST.items(), strict=True):
        lines: dict[str, list[tuple[int, float]]] = {}
        for figure in figures:
            what, _, size = figure.what.rpartition(", ")
            if figure.ratio is not None and size.endswith(unit):
                many = int(size.split()[0].replace(",", ""))
                lines.setdefault(what, [(smallest, 1.0)]).append((many, figure.ratio.median))
        for what, points in lines.items():
            axes.plot([size for size, _ in points], [ratio for _, ratio in points], "o-", label=what)
        axes.set_xscale("log")
        sizes = sorted({size for points in lines.values() for size, _ in points})
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes], minor=False)
        axes.set_xticks([], minor=True)
        axes.axhline(1, color=LINE, linewidth=1)
        axes.set_ylim(bottom=0)
        axes.set_xlabel(unit)
        axes.set_ylabel(f"times what it is with {smallest}")
        if lines:
            axes.legend(fontsize=7, frameon=False)
    _save(canvas, path)


def _margin(figure: Figure) -> Spread:
    counted = figure.ratio or figure.ours
    assert counted is not None
    assert figure.wanted is not None
    if figure.at_least:
        return Spread(*(value / figure.wanted for value in (counted.median, counted.least, counted.most)))
    return Spread(*(figure.wanted / max(value, 1e-9) for value in (counted.median, counted.most, counted.least)))


def _label(figure: Figure) -> str:
    return f"{figure.what}, beside {figure.reference_name}" if figure.reference_name else figure.what


def _as_times(axes: Axes) -> None:
    axes.set_xscale("log")
    least, most = axes.get_xlim()
    ticks = [tick for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 1000) if least <= tick <= most]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)


def _save(canvas: Canvas, path: Path) -> None:
    for axes in canvas.axes:
        axes.spines[["top", "right"]].set_visible(False)
    canvas.savefig(path, format="svg", metadata={"Date": None})
    path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")
