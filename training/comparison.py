"""Several trained networks side by side: each task's deciding metric, the gain over learning one task, the cost.

delta_m (Maninis, Radosavovic, Kokkinos, "Attentive Single-Tasking of Multiple Tasks", 2019, section 4): the mean over a
network's tasks of (M - S) / S, M its value and S that of a network trained for that task alone, with the sign turned
for errors, so that positive is better.

Which network that is, is the baseline: `same-network`, the multi-task network itself trained on that label alone, tells
what the other labels gave; `single-task`, a network of train_single_task.py, is another architecture as well.
"""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from strict import StrictModel
from tasks.base import Task
from training.evaluation import Results
from training.restore import Restored
from training.runs import SYMMETRIC, SingleTaskRun, SymmetricRun
from training.tables import Rows, finite_or_none


@dataclass(frozen=True)
class Row:
    """One network of the comparison."""

    kind: str
    mode: str
    values: dict[str, float]  # task -> its deciding metric; NaN where it was over nothing
    delta_m: float  # a fraction; NaN = n/a
    why_not: str  # why delta_m is n/a; empty where it is a number
    baseline: str  # what delta_m compares with: a key of BASELINES
    parameters: int  # of the heads that were trained, and of what they share
    gflop: float  # of a forward pass for one image through the same heads
    samples_seen: dict[str, int]  # task -> in training, repeated ones again


class Trained(Protocol):
    """What decides whether a network is a baseline of another one."""

    @property
    def kind(self) -> str: ...

    @property
    def mode(self) -> str: ...

    networks: dict[str, tuple[StrictModel, ...]]


def is_same_network(one: Trained, network: Trained, task: str) -> bool:
    """Whether `one` is the multi-task network itself, trained on the task's label alone."""
    alone = one.kind == SymmetricRun.kind and one.mode == task != SYMMETRIC
    return alone and one.networks.get(task) == network.networks[task]


def is_single_task(one: Trained, network: Trained, task: str) -> bool:
    """Whether `one` is a network of train_single_task.py for the task."""
    return one.kind == SingleTaskRun.kind and one.mode == task


# name -> whether its first argument is that baseline of the second for a task
BASELINES: dict[str, Callable[[Trained, Trained, str], bool]] = {
    "same-network": is_same_network,
    "single-task": is_single_task,
    "none": lambda one, network, task: False,
}


def compare(networks: Mapping[str, Restored], columns: Mapping[str, Results], baseline: str) -> dict[str, Row]:
    """Name -> network and name -> results, as in the tables -> name -> row."""
    tasks = known_tasks(networks)
    values = {name: deciding_values(columns[name], network.tasks) for name, network in networks.items()}
    rows, wanted = {}, compared_tasks(values)
    for name, network in networks.items():
        baselines = baseline_values(network, networks, values, baseline)
        why_not = why_no_delta_m(values[name], baselines, wanted, baseline)
        rows[name] = Row(
            kind=network.kind,
            mode=network.mode,
            values=values[name],
            delta_m=math.nan if why_not else delta_m(values[name], baselines, tasks),
            why_not=why_not,
            baseline=baseline,
            parameters=network.parameters(),
            gflop=network.gflop(),
            samples_seen=network.samples_seen,
        )
    return rows


def compared_tasks(values: Mapping[str, Mapping[str, float]]) -> set[str]:
    """Network -> its tasks' values -> what a delta_m must be over to stand beside the others: all tasks of the networks
    that have several, or of all networks where each has one."""
    several = [of.keys() for of in values.values() if len(of) > 1]
    return set().union(*(several or (of.keys() for of in values.values())))


def why_no_delta_m(
    values: Mapping[str, float], baselines: Mapping[str, float], wanted: Collection[str], baseline: str
) -> str:
    """Why a network has no delta_m that compares with the others'; empty where it has one."""
    if baseline == "none":
        return "no baseline asked for"
    if len(values) < len(wanted):  # a mean over fewer tasks, whichever they are, is another number
        return f"{len(values)} of {len(wanted)} tasks"
    if missing := [task for task in values if task not in baselines]:
        return f"no baseline for {', '.join(missing)}" if len(missing) < len(values) else "no baseline given"
    if unknown := [task for task in values if not (math.isfinite(values[task]) and math.isfinite(baselines[task]))]:
        return f"no value of {', '.join(unknown)}"
    if zero := [task for task in values if baselines[task] == 0]:
        return f"the baseline is 0 in {', '.join(zero)}"
    return ""


def baseline_values(
    network: Trained, networks: Mapping[str, Trained], values: Mapping[str, Mapping[str, float]], baseline: str
) -> dict[str, float]:
    """Task of the network -> deciding metric of its baseline; of two the first counts, without one it is absent."""
    found: dict[str, float] = {}
    for task in network.networks:
        first = next((name for name, one in networks.items() if BASELINES[baseline](one, network, task)), None)
        if first is not None:
            found[task] = values[first][task]
    return found


def delta_m(values: Mapping[str, float], baselines: Mapping[str, float], tasks: Mapping[str, Task]) -> float:
    """Task -> deciding metric, of a network and of its baselines: the mean relative gain, a fraction.

    NaN unless every task of the network has a baseline's value other than 0.
    """
    if not values or any(baselines.get(task, 0) == 0 for task in values):
        return math.nan
    gains = [
        (1 if tasks[task].deciding().higher_is_better else -1) * (value - baselines[task]) / baselines[task]
        for task, value in values.items()
    ]
    return sum(gains) / len(gains)


def deciding_values(results: Results, tasks: Mapping[str, Task]) -> dict[str, float]:
    """Each task's deciding metric; NaN where the results have none."""
    return {name: results.get(name, {}).get(task.best_metric, math.nan) for name, task in tasks.items()}


def known_tasks(networks: Mapping[str, Restored]) -> dict[str, Task]:
    return {name: task for network in networks.values() for name, task in network.tasks.items()}


def comparison_rows(rows: Mapping[str, Row], tasks: Mapping[str, Task]) -> Rows:
    """A row a network, labelled with its run's name and kind/mode."""
    written = {name: task.deciding() for name, task in tasks.items()}
    head = ["network", *(f"{name}: {one.directed}" for name, one in written.items())]
    lines = [[*head, "Delta-m, % ↑", "baseline", "parameters, M", "GFLOP"]]
    for name, row in rows.items():
        line = [f"{name} ({row.kind}/{row.mode})", *(one.number(row.values.get(task)) for task, one in written.items())]
        line += [f"n/a: {row.why_not}" if row.why_not else f"{100 * row.delta_m:+.1f}", row.baseline]
        lines.append([*line, f"{row.parameters / 1e6:.2f}", f"{row.gflop:.2f}"])
    return lines


def comparison_json(rows: Mapping[str, Row]) -> dict[str, Any]:
    """The same with None for n/a, NaN and infinity, which JSON lacks."""
    return {name: finite_or_none(asdict(row)) for name, row in rows.items()}
