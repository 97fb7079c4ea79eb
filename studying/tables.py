"""A study's numbers as text, from results.json: the tables of RESULTS.md, docs/results.md and README, CSV, LaTeX."""

from collections.abc import Sequence
from typing import Any

from studying.statistics import LEAST_SEEDS, Compared, Estimate, Results, comparisons_of, metric_of, rows_of
from training.tables import comma_separated, latex, markdown

NOT_DISTINGUISHABLE = "○"  # marks an interval that holds zero

Cells = list[list[str]]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    return markdown([header, *rows])


def as_csv(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    return f"{comma_separated([header, *rows])}\n"


# ---- the rows -------------------------------------------------------------------------------------------------


def metrics_table(results: Results) -> str:
    """What every row reached on test, with what it was given: the two senses of an equal budget side by side."""
    tasks = results["tasks"]
    head = ["row", "labels", "seeds", *(f"{name}, {task['title']}" for name, task in tasks.items())]
    head += [*(f"{name} labels seen" for name in tasks), "images passed", "learning rate"]
    rows = []
    if results["constant"]:
        constants = [number(results["constant"].get(name, {}).get(task["metric"])) for name, task in tasks.items()]
        rows.append(["constant baseline", "all", "", *constants, *[""] * (len(tasks) + 2)])
    for row, runs in rows_of(results).items():
        if not runs:
            continue
        first = next(iter(runs.values()))
        line = [row, results["config"]["rows"][row]["labels"], str(len(runs))]
        line += [mean_and_deviation(metric_of(results, row, name)) for name in tasks]
        line += [mean_count([run["labels_seen"].get(name) for run in runs.values()]) for name in tasks]
        line += [mean_count([run["images_seen"] for run in runs.values()]), f"{first['choice']['learning_rate']:g}"]
        rows.append(line)
    return table(head, rows)


def comparisons_table(results: Results) -> str:
    """Differences seed by seed; the primary comparison first and in bold."""
    head = ["comparison", "seeds", *(f"{name}, {task['title']}" for name, task in results["tasks"].items())]
    rows = []
    for name, one in comparisons_of(results).items():
        primary = name == results["config"]["primary"]
        line = [f"**{name}** (primary)" if primary else name, str(len(one.seeds))]
        line += [with_interval(one.gains.get(task), 4) for task in results["tasks"]]
        rows.append([*line, with_interval(one.delta_m, 1), one.delta_m.verdict])
    return table([*head, "Delta-m, %", "Delta-m is"], rows)


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}" if abs(value) < 10 else f"{value:.2f}"


def mean_count(counts: Sequence[int | None]) -> str:
    """Of labels or images; which labels a row keeps differs from seed to seed."""
    found = [count for count in counts if count is not None]
    return f"{round(sum(found) / len(found)):,}" if found else ""


def mean_and_deviation(estimate: Estimate | None) -> str:
    if estimate is None:
        return ""
    return number(estimate.mean) + ("" if estimate.deviation is None else f" ± {number(estimate.deviation)}")


def with_interval(estimate: Estimate | None, decimals: int) -> str:
    """A difference: mean [low, high], marked where it is not distinguishable from zero; single points without them."""
    if estimate is None:
        return ""
    if estimate.interval is None:
        return "points: " + ", ".join(f"{value:+.{decimals}f}" for value in estimate.values)
    low, high = estimate.interval
    mark = f" {NOT_DISTINGUISHABLE}" if low <= 0 <= high else ""
    return f"{estimate.mean:+.{decimals}f} [{low:+.{decimals}f}, {high:+.{decimals}f}]{mark}"


# ---- for papers and other programs ------------------------------------------------------------------------------


def latex_table(results: Results) -> str:
    """The rows for a paper (booktabs)."""
    tasks = results["tasks"]
    rows = [["row", "seeds", *(f"{name}, {task['title']}" for name, task in tasks.items())]]
    for row, runs in rows_of(results).items():
        rows.append([row, str(len(runs)), *(mean_and_deviation(metric_of(results, row, name)) for name in tasks)])
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
        f"(more is better), with the paired t interval of 95 % over {LEAST_SEEDS} seeds or more; {NOT_DISTINGUISHABLE} "
        "marks what is not distinguishable from zero, and fewer seeds are points without a claim. "
        "Only the primary comparison was named before the runs as a test; the others are looks."
    )
