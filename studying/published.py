"""Figures that others have published for a study's question: studies/published.yaml, with source and what differs.

They stand beside a study in docs/results.md and are compared with nothing.
"""

from pathlib import Path

from pydantic import Field

from strict import StrictModel
from strict_yaml import read_yaml, validated
from studying.tables import table


class Figure(StrictModel):
    """What one work reports for one kind of labels."""

    work: str
    """Authors, year, venue."""
    network: str
    labels: str
    """Which labels it was trained on."""
    figures: dict[str, str] = Field(min_length=1)
    """Metric -> its value with its unit, as printed there."""
    differs: str
    """In what size, split and protocol differ from the study's."""
    source: str
    """Where the figures were read."""


class Published(StrictModel):
    """studies/published.yaml."""

    studies: dict[str, list[Figure]]


def load_published(path: Path) -> Published:
    """UserError: the file is missing or broken, or a key is wrong."""
    return validated(Published, read_yaml(path), str(path))


def published_section(figures: list[Figure]) -> str:
    """The figures as a table; empty: there are none."""
    if not figures:
        return ""
    header = ["work", "network", "labels", "figures", "what differs", "source"]
    rows = [
        [
            figure.work,
            figure.network,
            figure.labels,
            ", ".join(f"{metric} {value}" for metric, value in figure.figures.items()),
            figure.differs,
            figure.source,
        ]
        for figure in figures
    ]
    return f"### Published figures\n\n{table(header, rows)}"
