"""What seeds say: means, deviations, and paired t intervals of differences. Fewer than five seeds give no interval."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import numpy as np
from scipy import stats

LEAST_SEEDS = 5  # for an interval, and so for a claim
CONFIDENCE = 0.95

Results = Mapping[str, Any]  # the content of a results.json


@dataclass(frozen=True)
class Estimate:
    """Of a number over seeds: its mean, deviation (n - 1), and t interval, if there are seeds enough."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return fmean(self.values)

    @property
    def deviation(self) -> float | None:
        return stdev(self.values) if len(self.values) > 1 else None

    @property
    def interval(self) -> tuple[float, float] | None:
        if len(self.values) < LEAST_SEEDS:
            return None
        if not self.deviation:
            return self.mean, self.mean
        low, high = stats.t.interval(CONFIDENCE, len(self.values) - 1, self.mean, stats.sem(self.values))
        return float(low), float(high)

    @property
    def verdict(self) -> str:
        """Of a difference in which more is better."""
        if self.interval is None:
            return "no claim"
        low, high = self.interval
        return "better" if low > 0 else "worse" if high < 0 else "not distinguishable from zero"


@dataclass(frozen=True)
class Compared:
    """A row against its baselines, seed by seed."""

    seeds: tuple[int, ...]
    gains: dict[str, Estimate]  # task -> difference in the metric's unit, its sign turned for errors: more is better
    delta_m: Estimate  # percent


def rows_of(results: Results) -> dict[str, dict[int, dict[str, Any]]]:
    """Row -> seed -> run, of the finished final runs; rows in the config's order."""
    rows: dict[str, dict[int, dict[str, Any]]] = {row: {} for row in results["config"]["rows"]}
    for run in results["runs"]:
        rows[run["row"]][run["seed"]] = run
    return rows


def deciding(results: Results, run: Mapping[str, Any], task: str) -> float | None:
    """A run's deciding metric of a task; None where it has none."""
    return run["test"].get(task, {}).get(results["tasks"][task]["metric"])


def metric_of(results: Results, row: str, task: str) -> Estimate | None:
    """Of a row over its seeds; None where it has no such task."""
    found = [deciding(results, run, task) for run in rows_of(results)[row].values()]
    values = tuple(value for value in found if value is not None)
    return Estimate(values) if values else None


def gain(value: float, baseline: float, higher_is_better: bool) -> float:
    return value - baseline if higher_is_better else baseline - value


def compared(results: Results, comparison: Mapping[str, Any]) -> Compared | None:
    """Over the seeds for which the row and all its baselines are finished; None: there is none."""
    rows, tasks = rows_of(results), results["tasks"]
    gains: dict[str, list[float]] = {task: [] for task in comparison["against"]}
    seeds, delta_m = [], []
    for seed, run in sorted(rows[comparison["row"]].items()):
        others = {task: other for task, row in comparison["against"].items() if (other := rows[row].get(seed))}
        if others.keys() != gains.keys():
            continue
        both = {task: (deciding(results, run, task), deciding(results, others[task], task)) for task in gains}
        pairs = {task: (value, other) for task, (value, other) in both.items() if value is not None and other}
        if pairs.keys() != gains.keys():
            continue
        found = {task: gain(*pair, tasks[task]["higher_is_better"]) for task, pair in pairs.items()}
        for task, difference in found.items():
            gains[task].append(difference)
        delta_m.append(100 * fmean(found[task] / pairs[task][1] for task in found))
        seeds.append(seed)
    if not seeds:
        return None
    by_task = {task: Estimate(tuple(values)) for task, values in gains.items()}
    return Compared(tuple(seeds), by_task, Estimate(tuple(delta_m)))


def comparisons_of(results: Results) -> dict[str, Compared]:
    """Name -> those that have a seed; the primary one first."""
    config = results["config"]
    names = sorted(config["comparisons"], key=lambda name: name != config["primary"])
    found = {name: compared(results, config["comparisons"][name]) for name in names}
    return {name: one for name, one in found.items() if one is not None}


def mean_curve(curves: Sequence[Sequence[Sequence[float]]]) -> list[tuple[float, float]]:
    """The mean over seeds of curves [[samples, value], ...], at the first one's samples as far as all of them reach."""
    end = min(curve[-1][0] for curve in curves)
    samples = [at for at, _ in curves[0] if at <= end]
    values = [np.interp(samples, [at for at, _ in curve], [value for _, value in curve]) for curve in curves]
    return list(zip(samples, np.mean(values, axis=0).tolist(), strict=True))
