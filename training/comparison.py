"""Several trained networks side by side: each task's deciding metric, the gain over single-task networks, the cost.

delta_m (Maninis, Radosavovic, Kokkinos, "Attentive Single-Tasking of Multiple Tasks", 2019, section 4): the mean over a
network's tasks of (M - S) / S, M its value and S the single-task network's, with the sign turned for errors, so that
positive is better.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tasks.base import Task
from training.evaluation import Results
from training.restore import Restored
from training.runs import SingleTaskRun
from training.tables import aligned, finite_or_none, number


@dataclass(frozen=True)
class Row:
    """One network of the comparison."""

    kind: str
    mode: str
    values: dict[str, float]  # task -> its deciding metric; NaN where it was over nothing
    delta_m: float  # a fraction; NaN = n/a
    parameters: int
    gflop: float  # of a forward pass for one image, all heads
    samples_seen: dict[str, int]  # task -> in training, repeated ones again


def compare(networks: Mapping[str, Restored], columns: Mapping[str, Results]) -> dict[str, Row]:
    """Name -> network and name -> results, as in the tables -> name -> row."""
    tasks = known_tasks(networks)
    values = {name: deciding_values(columns[name], network.tasks) for name, network in networks.items()}
    baselines: dict[str, float] = {}
    for name, network in networks.items():
        if network.kind == SingleTaskRun.kind:
            baselines = values[name] | baselines  # of two networks for one task the first counts
    return {
        name: Row(
            kind=network.kind,
            mode=network.mode,
            values=values[name],
            delta_m=delta_m(values[name], baselines, tasks),
            parameters=network.parameters(),
            gflop=network.gflop(),
            samples_seen=network.samples_seen,
        )
        for name, network in networks.items()
    }


def delta_m(values: Mapping[str, float], baselines: Mapping[str, float], tasks: Mapping[str, Task]) -> float:
    """Task -> deciding metric, of a network and of the single-task networks: the mean relative gain, a fraction.

    NaN (n/a) unless every task of the network has a single-task value other than 0: a mean over some of its tasks
    would not compare with the others' means.
    """
    if not values or any(baselines.get(task, 0) == 0 for task in values):
        return math.nan
    gains = [
        (1 if tasks[task].higher_is_better else -1) * (value - baselines[task]) / baselines[task]
        for task, value in values.items()
    ]
    return sum(gains) / len(gains)


def deciding_values(results: Results, tasks: Mapping[str, Task]) -> dict[str, float]:
    """Each task's deciding metric; NaN where the results have none."""
    return {name: results.get(name, {}).get(task.best_metric, math.nan) for name, task in tasks.items()}


def known_tasks(networks: Mapping[str, Restored]) -> dict[str, Task]:
    return {name: task for network in networks.values() for name, task in network.tasks.items()}


def comparison_table(rows: Mapping[str, Row], tasks: Mapping[str, Task]) -> str:
    """A row a network, labelled with its run's name and kind/mode."""
    head = ["network", *(f"{name} {task.best_metric}" for name, task in tasks.items())]
    head += ["delta_m %", "parameters M", "GFLOP", *(f"{name} seen" for name in tasks)]
    lines = [head]
    for name, row in rows.items():
        line = [f"{name} ({row.kind}/{row.mode})", *(number(row.values.get(task)) for task in tasks)]
        line += ["n/a" if math.isnan(row.delta_m) else f"{100 * row.delta_m:+.1f}"]
        line += [f"{row.parameters / 1e6:.2f}", f"{row.gflop:.2f}"]
        line += [str(row.samples_seen.get(task, "-")) for task in tasks]
        lines.append(line)
    return aligned(lines)


def comparison_json(rows: Mapping[str, Row]) -> dict[str, Any]:
    """The same with None for n/a, NaN and infinity, which JSON lacks."""
    return {name: finite_or_none(asdict(row)) for name, row in rows.items()}
