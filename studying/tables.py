"""A study's numbers as text, from results.json: the tables of RESULTS.md, docs/results.md and README, CSV, LaTeX."""

from collections.abc import Callable, Sequence
from typing import Any

from studying.statistics import LEAST_SEEDS, Compared, Estimate, Results, comparisons_of, metric_of, rows_of
from tasks import TASKS
from tasks.written import Written
from training.tables import comma_separated, latex, markdown

NOT_DISTINGUISHABLE = "○"  # marks an interval that holds zero


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    return markdown([header, *rows])


def as_csv(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    return f"{comma_separated([header, *rows])}\n"


# ---- the rows -------------------------------------------------------------------------------------------------


def metrics_table(results: Results) -> str:
    """What every row reached on test, with what it was given: the two senses of an equal budget side by side."""
    tasks = results["tasks"]
    head = ["row", "labels", "seeds", *(f"{name}: {of.directed}" for name, of in written_of(results).items())]
    head += [*(f"{name} labels seen" for name in tasks), "images passed", "learning rate"]
    rows = []
    if results["constant"]:
        constants = [
            of.number(results["constant"].get(name, {}).get(tasks[name]["metric"]))
            for name, of in written_of(results).items()
        ]
        rows.append(["constant baseline", "all", "", *constants, *[""] * (len(tasks) + 2)])
    for row, runs in rows_of(results).items():
        if not runs:
            continue
        first = next(iter(runs.values()))
        line = [row, results["config"]["rows"][row]["labels"], str(len(runs))]
        line += [mean_and_deviation(metric_of(results, row, name), of) for name, of in written_of(results).items()]
        line += [mean_count([run["labels_seen"].get(name) for run in runs.values()]) for name in tasks]
        line += [mean_count([run["images_seen"] for run in runs.values()]), f"{first['choice']['learning_rate']:g}"]
        rows.append(line)
    return table(head, rows)


def comparisons_table(results: Results) -> str:
    """Differences seed by seed; the primary comparison first and in bold."""
    head = ["comparison", "seeds", *(f"{name}: {of.heading}" for name, of in written_of(results).items())]
    rows = []
    for name, one in comparisons_of(results).items():
        primary = name == results["config"]["primary"]
        line = [f"**{name}** (primary)" if primary else name, str(len(one.seeds))]
        line += [with_interval(one.gains.get(task), of.difference) for task, of in written_of(results).items()]
        rows.append([*line, with_interval(one.delta_m, per_cent), one.delta_m.verdict])
    return table([*head, "Delta-m, %", "Delta-m is"], rows)


def written_of(results: Results) -> dict[str, Written]:
    """Task -> how its deciding metric is written."""
    return {name: TASKS[task["kind"]].written(task["metric"]) for name, task in results["tasks"].items()}


def per_cent(value: float) -> str:
    """Of Delta-m."""
    return f"{value:+.1f}"


def mean_count(counts: Sequence[int | None]) -> str:
    """Of labels or images; which labels a row keeps differs from seed to seed."""
    found = [count for count in counts if count is not None]
    return f"{round(sum(found) / len(found)):,}" if found else ""


def mean_and_deviation(estimate: Estimate | None, written: Written) -> str:
    if estimate is None:
        return "-"
    deviation = "" if estimate.deviation is None else f" ± {written.number(estimate.deviation)}"
    return written.number(estimate.mean) + deviation


def with_interval(estimate: Estimate | None, difference: Callable[[float], str]) -> str:
    """A difference: mean [low, high], marked where it is not distinguishable from zero; single points without them.

    difference: how one is written.
    """
    if estimate is None:
        return "-"
    if estimate.interval is None:
        return "points: " + ", ".join(map(difference, estimate.values))
    low, high = estimate.interval
    mark = f" {NOT_DISTINGUISHABLE}" if low <= 0 <= high else ""
    return f"{difference(estimate.mean)} [{difference(low)}, {difference(high)}]{mark}"


# ---- for papers and other programs ------------------------------------------------------------------------------


def latex_table(results: Results) -> str:
    """The rows for a paper (booktabs)."""
    written = written_of(results)
    rows = [["row", "seeds", *(f"{name}: {of.directed}" for name, of in written.items())]]
    for row, runs in rows_of(results).items():
        metrics = [mean_and_deviation(metric_of(results, row, name), of) for name, of in written.items()]
        rows.append([row, str(len(runs)), *metrics])
    return f"{latex(rows)}\n"


def seeds_csv(results: Results) -> str:
    """Every final run: its budget and its deciding metrics."""
    tasks = results["tasks"]
    head = ["row", "seed", *(f"{name} {task['metric']}" for name, task in tasks.items())]
    head += [*(f"{name} labels seen" for name in tasks), "images passed"]
    rows = []
    for row, runs in rows_of(results).items():
        for seed, run in sorted(runs.items()):
            values = [run["test"].get(name, {}).get(task["metric"], "") for name, task in tasks.items()]
            rows.append([row, seed, *values, *(run["labels_seen"].get(name, "") for name in tasks), run["images_seen"]])
    return as_csv(head, rows)


def comparisons_csv(results: Results) -> str:
    """Every comparison: of each task's gain and of Delta-m the mean and the interval."""
    rows = []
    for name, one in comparisons_of(results).items():
        for what, estimate in estimates(one).items():
            low, high = estimate.interval or ("", "")
            rows.append([name, what, len(one.seeds), estimate.mean, low, high, estimate.verdict])
    return as_csv(["comparison", "of", "seeds", "mean", "low", "high", "verdict"], rows)


def estimates(one: Compared) -> dict[str, Estimate]:
    return {**one.gains, "delta_m": one.delta_m}


def note() -> str:
    """How to read the tables."""
    return (
        "Mean ± standard deviation over seeds on test. Differences are taken seed by seed, the sign turned for errors "
        "(more is better), of rates in percentage points, with the paired t interval of 95 % over "
        f"{LEAST_SEEDS} seeds or more; {NOT_DISTINGUISHABLE} marks what is not distinguishable from zero, and fewer "
        "seeds are points without a claim. "
        "Only the primary comparison was named before the runs as a test; the others are looks."
    )
