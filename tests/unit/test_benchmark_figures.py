"""The arithmetic of benchmarks: neighbours are compared, order changes, and what was not run is no number."""

from __future__ import annotations

import json

import pytest

from benchmarks import plots, report
from benchmarks.figures import Figure, Spread, beside, fallen, ratios
from benchmarks.load import write_requests


def test_runs_are_interleaved_and_every_second_round_goes_the_other_way() -> None:
    order: list[str] = []

    def run(name: str) -> float:
        order.append(name)
        return 1.0

    beside({"ours": lambda: run("ours"), "peer": lambda: run("peer")}, rounds=3, say=lambda _: None)
    assert order == ["ours", "peer", "peer", "ours", "ours", "peer"]


def test_the_ratio_is_that_of_neighbours_and_not_of_medians() -> None:
    assert ratios([10, 40, 90], [10, 20, 30]) == Spread(median=2, least=1, most=3)


@pytest.mark.parametrize(
    ("wanted", "at_least", "holds"), [(1.5, True, True), (2.5, True, False), (2.5, False, True), (None, True, None)]
)
def test_what_is_asked_for_holds_or_does_not(wanted: float | None, at_least: bool, holds: bool | None) -> None:
    two = Spread(2, 1, 3)
    figure = Figure(
        "x", "x", "/s", two, reference_name="peer", reference=two, ratio=two, wanted=wanted, at_least=at_least
    )
    assert figure.holds is holds


def test_without_its_reference_a_figure_says_not_run_and_holds_nothing() -> None:
    figure = Figure("x", "accepts", "/s", Spread(9, 9, 9), reference_name="peer", wanted=1.5, not_run="no Node")
    assert figure.holds is None
    assert "NOT RUN: no Node" in report.as_table([figure])


def test_only_a_published_run_touches_the_page_and_nothing_of_an_earlier_one_stays(tmp_path, monkeypatch) -> None:
    page, results, picture = tmp_path / "page.md", tmp_path / "results.json", tmp_path / "picture.svg"
    page.write_text("before\n<!-- x: begin -->\nyesterday\n<!-- x: end -->\nafter\n")
    place = report.Page(results, page, "x", picture)
    monkeypatch.setattr(report, "UNPUBLISHED", tmp_path / "quick" / "results.json")
    one = Figure("x_vs_peer", "x", "/s", Spread(4, 4, 4), "peer", Spread(2, 2, 2), Spread(2, 2, 2), wanted=1.5)
    report.write([one], rounds=5, page=None)
    assert "yesterday" in page.read_text()
    assert not results.exists()
    report.write([one], rounds=5, page=place)
    assert json.loads(results.read_text())["ratios"] == {"x_vs_peer": 2}
    said = page.read_text()
    assert "yesterday" not in said
    assert "2.00 (2.00 to 2.00)" in said
    assert said.startswith("before\n")
    assert said.endswith("after\n")
    drawn = picture.read_text()
    assert "x, beside peer" in drawn
    report.write([one], rounds=5, page=place)
    assert picture.read_text() == drawn


def test_what_grows_is_drawn_beside_its_smallest_size(tmp_path) -> None:
    def sized(size: int, times: float) -> Figure:
        ratio = Spread(times, times, times)
        return Figure("x", f"accepts a second, {size:,} organizations", "/s", ratio, "with 10", ratio, ratio)

    plots.draw_growth([sized(1_000, 0.9), sized(10_000, 0.8)], tmp_path / "growth.svg")
    drawn = (tmp_path / "growth.svg").read_text()
    assert all(said in drawn for said in ("accepts a second", "organizations", "10,000"))


def test_every_request_is_unlike_any_other(tmp_path) -> None:
    path = tmp_path / "requests"
    write_requests(path, target="/webhooks/vapi/x", secret="secret", count=50)
    raw = path.read_bytes()
    assert raw.count(b"POST /webhooks/vapi/x HTTP/1.1") == 50
    assert len(set(raw.split(b"POST "))) == 51


@pytest.mark.parametrize(
    ("published", "at_least", "told"),
    [(2.9, True, 0), (3.1, True, 1), (1.4, False, 0), (1.3, False, 1), (None, True, 0)],
)
def test_a_ratio_that_has_fallen_by_more_than_a_third_is_told(
    published: float | None, at_least: bool, told: int
) -> None:
    two = Spread(2, 1, 3)
    figure = Figure("x", "x", "/s", two, reference_name="peer", reference=two, ratio=two, at_least=at_least)
    assert len(fallen([figure], {"x": published} if published else {"y": 9.0})) == told
