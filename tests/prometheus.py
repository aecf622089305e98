"""What Prometheus would read: /metrics parsed into numbers, by the library's own parser."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parse(text: str) -> Series:
    """Each series by its name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def total(series: Series, name: str, **labels: str) -> float:
    """The sum of all series of that name which have these labels."""
    wanted = set(labels.items())
    return sum(value for (found, has), value in series.items() if found == name and wanted <= has)


def names(series: Series) -> set[str]:
    """The names, as a query would use them."""
    return {name for name, _ in series}


def label_values(series: Series) -> set[str]:
    """Every value of every label."""
    return {value for _, labels in series for _, value in labels}
