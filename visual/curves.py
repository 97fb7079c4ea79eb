"""Training curves of one or several runs, from the metrics.jsonl that each keeps."""

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from datasets.files import parse_json
from datasets.layout import RunDir, curves_plot
from errors import UserError
from tasks import TASKS
from tasks.base import LOSS
from tasks.written import Written
from visual.output import joined
from visual.page import CM, COLOURS, Page, plotting

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = "osD^vP*"  # which tell runs apart without colours
LARGEST = 1e30  # of a number; axes overflow beyond
PANEL_CM = 4  # the least width of a panel with its numbers and name
Points = list[tuple[float, float]]  # (images passed, value)


@dataclass(frozen=True)
class RunCurves:
    """A run's lines of numbers."""

    name: str
    rows: list[dict[str, Any]]
    kinds: dict[str, str]  # task -> kind of label

    @classmethod
    def read(cls, folder: Path) -> "RunCurves":
        """UserError: the folder is not of a run, or the run has not logged anything yet."""
        run = RunDir(folder.absolute().parent, folder.absolute().name)
        if not run.metrics.is_file():
            raise UserError(f"--curves {folder}: there is no {run.metrics.name}; name the folder of a run")
        rows = [row for line in run.metrics.read_bytes().splitlines() if (row := _row_of(line))]
        curves = cls(run.dir.name, rows, _kinds_in(run.config))
        if not curves.tasks():
            raise UserError(f"--curves {folder}: {run.metrics.name} has no losses yet, or none that can be read")
        return curves

    def tasks(self) -> list[str]:
        parts = (name.split("/") for row in self.rows for name in row)  # train/TASK/loss, val/TASK/METRIC
        return list(dict.fromkeys(part[1] for part in parts if part[0] in ("train", "val") and len(part) > 2))

    def of(self, key: str) -> Points:
        return [(row["samples"], row[key]) for row in self.rows if _is_number(row.get(key))]

    def deciding(self, task: str) -> tuple[str, Written] | None:
        """The metric that decides which checkpoint is best, and how it is written; None for a kind unknown here."""
        kind = TASKS.get(self.kinds.get(task, task))
        return None if kind is None else (kind.best_metric, kind.deciding())


def write_curves(args: argparse.Namespace, page: Page) -> list[Path]:
    """What `visualize.py --curves RUN...` asks for -> the file."""
    runs = [RunCurves.read(folder) for folder in args.curves]
    path = curves_plot(args.out, joined([run.name for run in runs]), page.format)
    if len({run.name for run in runs}) < len(runs):  # of several roots
        runs = [replace(run, name=str(folder)) for run, folder in zip(runs, args.curves, strict=True)]
    with plotting():
        return [page.save_figure(curves_figure(runs, page), path)]


def curves_figure(runs: Sequence[RunCurves], page: Page) -> "Figure":
    """Two panels a task: above its losses in training and validation, below the metric that decides, best value marked.

    A colour a run. As many tasks side by side as the page has room for. It is made within `visual.page.plotting`.
    """
    tasks = list(dict.fromkeys(task for run in runs for task in run.tasks()))
    columns = min(len(tasks), max(1, int(page.width_cm / PANEL_CM)))
    rows = math.ceil(len(tasks) / columns)
    figure = page.figure(height_cm=8 * rows + 1.5, columns=len(tasks) > 1)
    axes = figure.subplots(2 * rows, columns, squeeze=False)
    for place, task in enumerate(tasks):
        row, column = divmod(place, columns)
        above, below = axes[2 * row : 2 * row + 2, column]
        above.sharex(below)
        above.tick_params(labelbottom=False)
        above.set_title(task)
        _draw_losses(above, runs, task)
        _draw_metric(below, runs, task)
        below.set_xlabel("images trained on")
    for empty in axes[-2:, len(tasks) - (rows - 1) * columns :].flat:
        empty.remove()
    handles, labels = _legend(runs)
    figure.legend(handles, labels, loc="outside lower center", ncols=max(2, int(figure.get_figwidth() * CM / 3)))
    return figure


def _draw_losses(axes: "Axes", runs: Sequence[RunCurves], task: str) -> None:
    for i, run in enumerate(runs):
        _draw(axes, run.of(f"train/{task}/loss"), i, linestyle="-")
        _draw(axes, run.of(f"val/{task}/loss"), i, linestyle="--", marker=MARKERS[i % len(MARKERS)])
    axes.set_ylabel(LOSS.directed)
    axes.grid(alpha=0.3)


def _draw_metric(axes: "Axes", runs: Sequence[RunCurves], task: str) -> None:
    for i, run in enumerate(runs):
        if (deciding := run.deciding(task)) is None:
            continue
        key, written = deciding
        points = [(samples, written.scale * value) for samples, value in run.of(f"val/{task}/{key}")]
        _draw(axes, points, i, linestyle="--", marker=MARKERS[i % len(MARKERS)])
        if points:
            choose: Callable[..., Any] = max if written.higher_is_better else min
            best = choose(points, key=lambda point: point[1])
            axes.plot(*best, "o", markersize=8, markerfacecolor="none", color=COLOURS[i % len(COLOURS)])
        axes.set_ylabel(f"validation {written.directed}")
    if not axes.lines:
        axes.text(0.5, 0.5, "not validated", ha="center", va="center", transform=axes.transAxes)
    axes.grid(alpha=0.3)


def _draw(axes: "Axes", points: Points, run: int, **style: Any) -> None:
    if points:
        axes.plot(*zip(*points, strict=True), color=COLOURS[run % len(COLOURS)], **style)


def _legend(runs: Sequence[RunCurves]) -> tuple[list[Any], list[str]]:
    from matplotlib.lines import Line2D

    names = [run.name for run in runs]
    handles = [
        Line2D([], [], color=COLOURS[i % len(COLOURS)], marker=MARKERS[i % len(MARKERS)]) for i in range(len(runs))
    ]
    solid, dashed = (Line2D([], [], color="0.3", linestyle=style) for style in ("solid", "dashed"))
    ring = Line2D([], [], color="0.3", linestyle="none", marker="o", markersize=8, markerfacecolor="none")
    return [*handles, solid, dashed, ring], [*names, "training", "validation", "best of the run"]


def _row_of(line: bytes) -> dict[str, Any] | None:
    """None for a line that a crash has cut short or spoilt."""
    try:
        row = parse_json(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and _is_number(row.get("samples")) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) <= LARGEST  # false for NaN as well


def _kinds_in(config: Path) -> dict[str, str]:
    """Task -> kind, of the tasks that have another name than their kind."""
    if not config.is_file():
        return {}
    tasks: dict[str, Any] = (yaml.safe_load(config.read_text()) or {}).get("tasks") or {}
    return {name: section["label"] for name, section in tasks.items() if section and section.get("label")}
