"""Figures that others have published for a study's question: studies/published.yaml, with source and what differs.

They stand beside a study in docs/results.md and are compared with nothing.
"""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from strict import StrictModel
from strict_yaml import read_yaml, validated
from studying.tables import table


class Work(StrictModel):
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

    studies: dict[str, Annotated[list[Work], Field(min_length=1)]]


def load_published(path: Path) -> Published:
    """UserError: the file is missing or broken, or a key is wrong."""
    return validated(Published, read_yaml(path), str(path))


def published_section(works: list[Work]) -> str:
    """A study's published figures as a table."""
    header = ["work", "network", "labels", "figures", "what differs", "source"]
    rows = [[one.work, one.network, one.labels, _listed(one.figures), one.differs, one.source] for one in works]
    return f"### Published figures\n\n{table(header, rows)}"


def _listed(figures: dict[str, str]) -> str:
    return ", ".join(f"{metric} {value}" for metric, value in figures.items())
