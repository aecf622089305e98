"""The dashboard and the alert rules speak of metrics that exist, by labels that they have, and leave none out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.observability import metrics
from app.services.measurements import GAUGES, PARTS

ROOT = Path(__file__).resolve().parents[2]
RULES = [
    rule
    for group in yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
DASHBOARD = json.loads((ROOT / "deploy/grafana/voicedesk.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
HISTOGRAM_SUFFIX = re.compile(r"_(bucket|count|sum)$")
# What nobody must be woken for: how fast and how much, and what another metric says better.
NOT_ALARMING = {
    "voicedesk_webhooks_duplicate_total",  # providers repeat themselves
    "voicedesk_delivery_seconds",  # the oldest that waits is told before the slow one has ended
    "voicedesk_handler_seconds",
    "voicedesk_request_seconds",
    "voicedesk_outbound_seconds",  # circuits
    "voicedesk_quota_refusals_total",  # what quotas are for
    "voicedesk_ledger",  # its difference
    "voicedesk_webhooks_spooled_total",  # what is in the spool, and whether it takes more
}

known = {**metrics.declared(), **{f"voicedesk_{name}": labels for name, (_, labels) in GAUGES.items()}}


def expressions() -> list[Any]:
    asked = [(rule["alert"], rule["expr"]) for rule in RULES]
    asked += [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]
    return [pytest.param(expression, id=title) for title, expression in asked]


def named(expression: str) -> set[str]:
    return {
        name if name in known else HISTOGRAM_SUFFIX.sub("", name) for name in re.findall(r"\bvoicedesk_\w+", expression)
    }


@pytest.mark.parametrize("expression", expressions())
def test_every_metric_and_every_label_that_is_asked_for_exists(expression: str) -> None:
    assert named(expression) <= set(known)
    labels = {label for name in named(expression) for label in known[name]} | {"le", "job", "instance"}
    asked = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", expression))
    for group in re.findall(r"\b(?:by|on|ignoring|without)\s*\(([^)]*)\)", expression):
        asked |= {label.strip() for label in group.split(",") if label.strip()}
    assert asked <= labels


@pytest.mark.parametrize("expression", expressions())
def test_a_histogram_is_asked_by_its_parts_and_a_counter_for_its_growth(expression: str) -> None:
    for name in re.findall(r"\bvoicedesk_\w+", expression):
        if name in metrics.declared():
            assert name.endswith("_total"), f"{name} needs _bucket, _count or _sum"
            assert re.search(rf"\b(rate|increase)\({name}", expression), f"{name} only ever grows"
        elif HISTOGRAM_SUFFIX.sub("", name) in metrics.declared():
            assert re.search(rf"\b(rate|increase)\({name}", expression), f"{name} only ever grows"


def test_every_metric_is_on_the_dashboard() -> None:
    shown = {name for panel in PANELS for target in panel["targets"] for name in named(target["expr"])}
    assert set(known) - shown == set()


def test_every_metric_that_is_worth_an_alert_has_one() -> None:
    watched = {name for rule in RULES for name in named(rule["expr"])}
    assert set(known) - watched == NOT_ALARMING


def test_every_value_that_a_rule_compares_a_label_with_can_occur() -> None:
    possible = {
        "outcome": {*metrics.OUTCOMES, *metrics.UNSPOOLED, "ok", "bug", *metrics.CODES},
        "code": {*metrics.CODES, metrics.OTHER},
        "status": {"received", "processing", "retrying"},
        "job": {"voicedesk"},
    }
    for rule in RULES:
        for label, how, value in re.findall(r"(\w+)\s*(=~|!~|!=|=)\s*\"([^\"]*)\"", rule["expr"]):
            for one in value.split("|") if "~" in how else [value]:
                assert any(re.fullmatch(one, occurs) for occurs in possible[label]), f"{rule['alert']}: {label}={one}"


@pytest.mark.parametrize("rule", [pytest.param(rule, id=rule["alert"]) for rule in RULES])
def test_a_rule_says_what_is_wrong_how_bad_it_is_and_where_to_read_on(rule: dict[str, Any]) -> None:
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"Voicedesk[A-Za-z]+", rule["alert"])
    assert re.fullmatch(r"\d+[smh]", rule.get("for", "1m"))
    assert rule["labels"]["severity"] in {"page", "warn", "info"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    headings = re.findall(r"^#+ (.+)$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
    assert anchor in {re.sub(r"[^\w-]", "", heading.lower().replace(" ", "-")) for heading in headings}


def test_rules_and_panels_have_names_of_their_own() -> None:
    for names in ([rule["alert"] for rule in RULES], [panel["title"] for panel in PANELS]):
        assert len(names) == len(set(names))
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))


def test_no_panel_lies_on_another() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        grid = panel["gridPos"]
        cells = {(grid["x"] + x, grid["y"] + y) for x in range(grid["w"]) for y in range(grid["h"])}
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_every_metric_is_explained_in_the_guide_and_no_other() -> None:
    guide = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(voicedesk_\w+)`", guide, re.MULTILINE)) == set(known)
    for name, labels in known.items():
        row = next(line for line in guide.splitlines() if line.startswith(f"| `{name}`"))
        assert set(re.findall(r"`(\w+)`", row.split("|")[2])) == set(labels), name
    assert {part for part in PARTS if f"`{part}`" not in guide} == set()
