"""Metrics of several networks as tables, for people, spreadsheets and papers, and as JSON."""

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from training.evaluation import Results

Rows = Sequence[Sequence[str]]  # of cells; the first row is the head
Layout = Callable[[Rows], str]


def metric_tables(columns: Mapping[str, Results], layout: Layout) -> str:
    """One table a task: a row for every metric, a column for every network. '-' where a network lacks the task."""
    tasks = dict.fromkeys(task for results in columns.values() for task in results)
    return "\n\n".join(
        layout(_rows(task, {name: results.get(task, {}) for name, results in columns.items()})) for task in tasks
    )


def _rows(task: str, columns: Mapping[str, Mapping[str, float]]) -> Rows:
    metrics = list(dict.fromkeys(metric for values in columns.values() for metric in values))
    metrics.sort(key=lambda metric: "/" in metric)  # values of single classes last
    rows = [[task, *columns]]
    rows += [[metric, *(number(values.get(metric)) for values in columns.values())] for metric in metrics]
    return rows


def aligned(rows: Rows) -> str:
    """Lines of text: the first column flush left, the others flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    )


def markdown(rows: Rows) -> str:
    head, *others = rows
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *others))


def latex(rows: Rows) -> str:
    """For a paper (booktabs)."""
    head, *lines = (f"{' & '.join(map(escaped, row))} \\\\" for row in rows)
    columns = "l" + "r" * (len(rows[0]) - 1)
    return "\n".join(
        [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule", *lines, r"\bottomrule", r"\end{tabular}"]
    )


def escaped(text: str) -> str:
    """For LaTeX."""
    return "".join("\\" + letter if letter in "&%$#_{}" else letter for letter in text).replace("±", r"$\pm$")


def comma_separated(rows: Rows) -> str:
    content = io.StringIO()
    csv.writer(content, lineterminator="\n").writerows(rows)
    return content.getvalue().rstrip("\n")


def number(value: float | None) -> str:
    """'-' where there is none; counts (int) without decimals."""
    if value is None or math.isnan(value):
        return "-"
    if isinstance(value, int):
        return str(value)
    return f"{value:.4f}" if abs(value) < 100 else f"{value:.1f}"


def as_json(columns: Mapping[str, Results]) -> dict[str, Any]:
    """The same numbers with None for NaN and infinity, which JSON lacks."""
    return finite_or_none(columns)


def finite_or_none(value: Any) -> Any:
    """Mappings of numbers and text, to any depth, with None for NaN and infinity."""
    if isinstance(value, Mapping):
        return {key: finite_or_none(part) for key, part in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
