"""Metrics of several networks as tables, for people, spreadsheets and papers, and as JSON."""

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tasks.base import Task
from training.evaluation import Results

Rows = Sequence[Sequence[str]]  # of cells; the first row is the head
Layout = Callable[[Rows], str]
LATEX = {"±": r"$\pm$", "δ": r"$\delta$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "<": "$<$", ">": "$>$"}
LATEX |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}


def metric_tables(columns: Mapping[str, Results], tasks: Mapping[str, Task]) -> dict[str, Rows]:
    """Name of a table -> its rows: of each task a row for every metric, then a row for every class; a column for every
    network that has the task, '-' where it has no such value."""
    tables: dict[str, Rows] = {}
    for name, task in tasks.items():
        values = {column: results[name] for column, results in columns.items() if name in results}
        tables |= {name: _metric_rows(name, task, values)} | _class_tables(name, task, values)
    return tables


def _metric_rows(name: str, task: Task, columns: Mapping[str, Mapping[str, float]]) -> Rows:
    metrics = dict.fromkeys(metric for values in columns.values() for metric in values if "/" not in metric)
    rows = [[name, *columns]]
    for metric in metrics:
        written, (_, of, root) = task.written(metric), metric.partition("@")
        label = replace(written, title=f"{written.title}{of}{root}").directed
        rows.append([label, *(written.number(values.get(metric)) for values in columns.values())])
    return rows


def _class_tables(name: str, task: Task, columns: Mapping[str, Mapping[str, float]]) -> dict[str, Rows]:
    """Of each metric that classes have, the commonest class first, as far as the task tells how common they are."""
    found: dict[str, dict[str, float]] = {}  # metric -> class -> the first network's value
    for values in reversed([*columns.values()]):
        for key, value in values.items():
            metric, slash, class_name = key.partition("/")
            if slash:
                found.setdefault(metric, {})[class_name] = value
    common = found.pop(task.class_frequency, {}) if task.class_frequency else {}
    frequency = task.written(task.class_frequency or "")
    tables: dict[str, Rows] = {}
    for metric, classes in found.items():
        written = task.written(metric)
        head, order = f"{name}: {written.directed}", list(classes)
        if common:
            head += f"; classes by {frequency.title} in the evaluated labels"
            order.sort(key=lambda one: -common.get(one, 0))
        rows = [[head, *([frequency.heading] if common else []), *columns]]
        for one in order:
            cells = [frequency.number(common.get(one))] if common else []
            cells += [written.number(values.get(f"{metric}/{one}")) for values in columns.values()]
            rows.append([one, *cells])
        tables[f"{name}/{metric}"] = rows
    return tables


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
    return "".join("\\" + letter if letter in "&%$#_{}" else LATEX.get(letter, letter) for letter in text)


def comma_separated(rows: Rows) -> str:
    content = io.StringIO()
    csv.writer(content, lineterminator="\n").writerows(rows)
    return content.getvalue().rstrip("\n")


LAYOUTS: dict[str, Layout] = {"aligned": aligned, "csv": comma_separated, "markdown": markdown, "latex": latex}


def as_json(columns: Mapping[str, Results]) -> dict[str, Any]:
    """The same numbers with None for NaN and infinity, which JSON lacks."""
    return finite_or_none(columns)


def finite_or_none(value: Any) -> Any:
    """Mappings of numbers and text, to any depth, with None for NaN and infinity."""
    if isinstance(value, Mapping):
        return {key: finite_or_none(part) for key, part in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
