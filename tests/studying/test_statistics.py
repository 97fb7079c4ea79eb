"""Statistics against slow, obvious formulas."""

import math
import random
from typing import Any

import pytest

from studying.statistics import Estimate, compared, comparisons_of, mean_curve, metric_of
from tasks import TASKS
from tests.studying.made_up import made_up_results
from training.comparison import delta_m

# two-sided 95 % of Student's t by degrees of freedom, from a printed table
T = {4: 2.776, 5: 2.571, 9: 2.262}


@pytest.mark.parametrize("count", [5, 6, 10])
def test_mean_deviation_and_t_interval(count: int) -> None:
    values = [random.Random(count).gauss(3, 2) for _ in range(count)]
    mean = sum(values) / count
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (count - 1))
    half = T[count - 1] * deviation / math.sqrt(count)
    estimate = Estimate(tuple(values))
    assert estimate.mean == pytest.approx(mean)
    assert estimate.deviation == pytest.approx(deviation)
    assert estimate.interval == pytest.approx((mean - half, mean + half), rel=1e-3)


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ((1.0, 1.1, 0.9, 1.2, 0.8), "better"),
        ((-1.0, -1.1, -0.9, -1.2, -0.8), "worse"),
        ((1.0, -1.1, 0.9, -1.2, 0.8), "not distinguishable from zero"),
        ((0.0,) * 5, "not distinguishable from zero"),
        ((1.0, 1.0, 1.0, 1.0), "no claim"),
        ((1.0,), "no claim"),
    ],
)
def test_a_verdict_needs_five_seeds_and_an_interval_without_zero(values: tuple[float, ...], verdict: str) -> None:
    assert Estimate(values).verdict == verdict
    assert (Estimate(values).interval is None) == (verdict == "no claim")


def test_differences_are_taken_seed_by_seed() -> None:
    """Seeds differ by far more than rows: only a paired interval sees the difference."""
    results = made_up_results(seeds=5, gain=0.01, spread=0.2)
    one = compared(results, results["config"]["comparisons"]["sharing"])
    assert one.seeds == (1, 2, 3, 4, 5)
    assert one.gains["segmentation"].values == pytest.approx([0.01] * 5)
    assert one.gains["depth"].values == pytest.approx([0.01] * 5)  # an error that is smaller: more is better
    assert one.gains["segmentation"].verdict == "better"
    assert metric_of(results, "together", "segmentation").deviation > 0.05


def test_delta_m_is_that_of_evaluate_py() -> None:
    results = made_up_results(seeds=5, gain=0.03, spread=0.1)
    one = comparisons_of(results)["sharing"]
    tasks: dict[str, Any] = {task: TASKS[task] for task in ("segmentation", "depth")}
    by_key = {(run["row"], run["seed"]): run["test"] for run in results["runs"]}
    for seed, value in zip(one.seeds, one.delta_m.values, strict=True):
        row = by_key["together", seed]
        values = {"segmentation": row["segmentation"]["miou"], "depth": row["depth"]["abs_rel"]}
        alone = {
            "segmentation": by_key["segmentation alone", seed]["segmentation"]["miou"],
            "depth": by_key["depth alone", seed]["depth"]["abs_rel"],
        }
        assert value == pytest.approx(100 * delta_m(values, alone, tasks))


def test_a_seed_without_its_baseline_does_not_count() -> None:
    results = made_up_results(seeds=5, gain=0.03, spread=0.1)
    results["runs"] = [run for run in results["runs"] if (run["row"], run["seed"]) != ("depth alone", 4)]
    one = comparisons_of(results)["sharing"]
    assert one.seeds == (1, 2, 3, 5)
    assert one.delta_m.verdict == "no claim"


def test_curves_of_seeds_that_pass_other_numbers_of_images() -> None:
    one, other = [[0, 0.0], [10, 10.0], [30, 30.0]], [[0, 2.0], [20, 22.0]]  # x and x + 2
    assert mean_curve([one, other]) == [(0, 1.0), (10, 11.0)]
