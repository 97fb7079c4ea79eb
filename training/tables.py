"""Metrics of several networks as text tables and JSON."""

import math
from collections.abc import Mapping
from typing import Any

from training.evaluation import Results


def metric_tables(columns: Mapping[str, Results]) -> str:
    """One table a task: a row for every metric, a column for every network. '-' where a network lacks the task."""
    tasks = dict.fromkeys(task for results in columns.values() for task in results)
    return "\n\n".join(
        _table(task, {name: results.get(task, {}) for name, results in columns.items()}) for task in tasks
    )


def _table(task: str, columns: Mapping[str, Mapping[str, float]]) -> str:
    metrics = list(dict.fromkeys(metric for values in columns.values() for metric in values))
    metrics.sort(key=lambda metric: "/" in metric)  # values of single classes last
    rows = [[task, *columns]]
    rows += [[metric, *(_number(values.get(metric)) for values in columns.values())] for metric in metrics]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(_aligned(row, widths)) for row in rows)


def _aligned(row: list[str], widths: list[int]) -> list[str]:
    return [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]


def _number(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.4f}" if abs(value) < 100 else f"{value:.1f}"


def as_json(columns: Mapping[str, Results]) -> dict[str, Any]:
    """The same numbers with None for NaN and infinity, which JSON lacks."""
    return {
        name: {
            task: {metric: value if math.isfinite(value) else None for metric, value in values.items()}
            for task, values in results.items()
        }
        for name, results in columns.items()
    }
