"""A study's plots, PNG and PDF, readable in black and white, with their numbers as CSV beside them."""

import textwrap
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from datasets.files import whole_file
from studying.results import StudyDir
from studying.statistics import Estimate, Results, comparisons_of, mean_curve, metric_of, rows_of
from studying.tables import as_csv, comparisons_csv, seeds_csv, written_of

STYLES = (("-", "o"), ("--", "s"), (":", "^"), ("-.", "D"))
GREYS = ("0.0", "0.35", "0.6")


def draw_all(results: Results, folder: StudyDir) -> list[str]:
    """Draw what the results have something for -> the names of the plots."""
    drawn = {
        "metrics": (metrics_plot(results), seeds_csv(results)),
        "delta_m": (delta_m_plot(results), comparisons_csv(results)),
        "shares": shares_plot(results),
        "curves": curves_plot(results, "losses", "training loss"),
        "similarity": curves_plot(results, "similarity", "cosine similarity of gradients"),
    }
    found = {name: (figure, text) for name, (figure, text) in drawn.items() if figure is not None}
    for name, (figure, text) in found.items():
        save(figure, folder.plot(name, "png"))
        save(figure, folder.plot(name, "pdf"))
        with whole_file(folder.plot(name, "csv")) as file:
            file.write(text.encode())
    return list(found)


def save(figure: Figure, path: Path) -> None:
    metadata = {"CreationDate": None} if path.suffix == ".pdf" else None  # the same numbers give the same file
    with whole_file(path) as file:
        figure.savefig(file, format=path.suffix[1:], dpi=120, metadata=metadata)


def panels(count: int, height: float) -> tuple[Figure, list[Any]]:
    figure = Figure(figsize=(5.5 * count, height), layout="constrained")
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def wrapped(name: str) -> str:
    """A name in lines short enough to leave the axes their room."""
    return textwrap.fill(name, 40)


def metrics_plot(results: Results) -> Figure | None:
    """Every row's seeds as points and their mean as a bar, a panel a task."""
    tasks, rows = results["tasks"], [row for row, runs in rows_of(results).items() if runs]
    if not rows:
        return None
    figure, axes = panels(len(tasks), 1.5 + 0.35 * len(rows))
    labels = [wrapped(row) for row in rows]
    for index, (axis, (name, written)) in enumerate(zip(axes, written_of(results).items(), strict=True)):
        for place, row in enumerate(rows):
            estimate = metric_of(results, row, name)
            if estimate is not None:
                values = [written.scale * value for value in estimate.values]
                axis.plot(values, [place] * len(values), "o", color="0.6", markersize=4)
                axis.plot([written.scale * estimate.mean], [place], "k|", markersize=14)
        axis.set(yticks=range(len(rows)), yticklabels=[] if index else labels, title=f"{name}: {written.heading}")
        axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.grid(axis="x", color="0.9")
        axis.set_xlabel(f"{written.better} is better")
    return figure


def delta_m_plot(results: Results) -> Figure | None:
    """Every comparison: seeds as points, mean and interval; hollow where it is not distinguishable from zero."""
    found = comparisons_of(results)
    if not found:
        return None
    figure, (axis,) = panels(1, 1.5 + 0.45 * len(found))
    figure.set_figwidth(8)
    for place, (name, one) in enumerate(found.items()):
        estimate = one.delta_m
        axis.plot(estimate.values, [place + 0.22] * len(estimate.values), ".", color="0.6")
        if estimate.interval is None:
            continue
        low, high = estimate.interval
        sure = estimate.verdict in ("better", "worse")
        face = "black" if sure else "white"
        marker = "D" if name == results["config"]["primary"] else "o"
        error = [[estimate.mean - low], [high - estimate.mean]]
        axis.errorbar(estimate.mean, place, xerr=error, fmt=marker, color="black", markerfacecolor=face, capsize=3)
    axis.axvline(0, color="0.5", linewidth=1)
    labels = [wrapped(f"{name} (primary)" if name == results["config"]["primary"] else name) for name in found]
    axis.set(yticks=range(len(found)), yticklabels=labels, xlabel="Delta-m, %; 95 % interval; hollow: zero is inside")
    axis.set_ylim(len(found) - 0.5, -0.5)
    return figure


def shares_plot(results: Results) -> tuple[Figure | None, str]:
    """Each task's metric against the share of the labels, with bands of the interval (or of the seeds' range)."""
    tasks, lines = written_of(results), share_lines(results)
    if not lines:
        return None, ""
    figure, axes = panels(len(tasks), 4)
    ticks = sorted({share for points in lines.values() for share, _ in points})
    written = []
    for axis, (name, of) in zip(axes, tasks.items(), strict=True):
        styles = zip(cycle(STYLES), cycle(GREYS), strict=False)
        for (line, points), ((dash, marker), grey) in zip(lines.items(), styles, strict=False):
            found = [(share, metric_of(results, row, name)) for share, row in points]
            shown = [(share, estimate, *band(estimate)) for share, estimate in found if estimate is not None]
            if not shown:
                continue
            shares, estimates, lows, highs = zip(*shown, strict=True)
            means = [estimate.mean for estimate in estimates]
            drawn = [[of.scale * value for value in values] for values in (means, lows, highs)]
            axis.plot(shares, drawn[0], linestyle=dash, marker=marker, color=grey, label=line)
            axis.fill_between(shares, *drawn[1:], color=grey, alpha=0.15)
            written += [[name, line, share, mean, low, high] for share, mean, low, high in zip(
                shares, means, lows, highs, strict=True)]  # fmt: skip
        axis.set(xscale="log", xlabel="share of the labels, %", title=f"{name}: {of.heading}")
        axis.set_xticks(ticks, [f"{100 * share:g}" for share in ticks])
        axis.minorticks_off()
        if any(line == name for line, *_ in written):
            axis.legend(fontsize=8)
    return figure, as_csv(["task", "line", "share", "mean", "low", "high"], written)


def share_lines(results: Results) -> dict[str, list[tuple[float, str]]]:
    """Line -> its points (share, row) by rising share."""
    lines: dict[str, list[tuple[float, str]]] = {}
    for row, section in results["config"]["rows"].items():
        if section.get("curve") and section.get("share"):
            lines.setdefault(section["curve"], []).append((section["share"], row))
    return {line: sorted(points) for line, points in lines.items()}


def band(estimate: Estimate) -> tuple[float, float]:
    return estimate.interval or (min(estimate.values), max(estimate.values))


def curves_plot(results: Results, what: str, label: str) -> tuple[Figure | None, str]:
    """Means over seeds by samples seen: a panel a task (losses) or pair of tasks (similarity), a line a row."""
    found = list(curves_of(results, what))
    names = list(dict.fromkeys(name for name, _, _ in found))
    if not names:
        return None, ""
    figure, axes = panels(len(names), 4.5)
    for axis, name in zip(axes, names, strict=True):
        styles = zip(cycle(STYLES), cycle(GREYS), strict=False)
        lines = [(row, curve) for panel, row, curve in found if panel == name]
        for (row, curve), ((dash, marker), grey) in zip(lines, styles, strict=False):
            samples, values = zip(*curve, strict=True)
            every = max(1, len(samples) // 8)
            style = {"linestyle": dash, "marker": marker, "markevery": every, "markersize": 4, "linewidth": 1}
            axis.plot(samples, values, color=grey, label=row, **style)
        axis.set(xlabel="images passed", ylabel=label, title=name)
        axis.legend(fontsize=7)
    rows = [[name, row, samples, value] for name, row, curve in found for samples, value in curve]
    return figure, as_csv(["of", "row", "samples", label], rows)


def curves_of(results: Results, what: str) -> Iterator[tuple[str, str, list[tuple[float, float]]]]:
    """(task or pair of tasks, row, mean curve)."""
    for row, runs in rows_of(results).items():
        names = dict.fromkeys(name for run in runs.values() for name in run[what])
        for name in names:
            curves: list[Sequence[Sequence[float]]] = [run[what][name] for run in runs.values() if run[what].get(name)]
            if curves:
                yield name, row, mean_curve(curves)
