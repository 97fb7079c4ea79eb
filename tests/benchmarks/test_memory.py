"""The memory estimate against real tensors, and the table's rules, on the demo's small network."""

from dataclasses import replace
from functools import cache

import pytest
import torch

from benchmarks.memory import CARD, Case, Estimate, estimate, measure, micro_batch_that_fits, row
from benchmarks.readme import balancing_table, memory_table
from benchmarks.steps import allocated_peak
from models.multitask import BACKBONE
from training.config import NetworkConfig, TrainingConfig
from training.runs import SYMMETRIC, SymmetricRun

SIZE = (64, 64)


def case(balancing: str = "fixed", mode: str = SYMMETRIC) -> Case:
    """Two tasks on a narrow network: few operators, since each costs the tracker milliseconds."""
    config = SymmetricRun(
        training=TrainingConfig(epochs=1),
        network=NetworkConfig(encoder="small", pretrained="none", channels=8, layers=1),
        batch_size=2,
        micro_batch_size=2,
        learning_rate=0.001,
        balancing=balancing,
        tasks={"steering": {}, "segmentation": {}},
    )
    return Case("small", config, mode)


@cache
def estimated(balancing: str = "fixed", mode: str = SYMMETRIC) -> Estimate:
    return estimate(case(balancing, mode), SIZE)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("balancing", ["fixed", "pcgrad"])
def test_the_estimate_is_what_real_tensors_take(balancing: str) -> None:
    found, measured = estimated(balancing), measure(case(balancing), SIZE)
    assert replace(found, activations=0) == replace(measured, activations=0)
    assert found.activations == pytest.approx(measured.activations, rel=0.1)


def test_a_frozen_encoder_is_estimated_as_well() -> None:
    config = case().config
    network = NetworkConfig(encoder="small", pretrained="weights.pt", channels=8, layers=1)
    frozen = Case("frozen", config.model_copy(update={"network": network}), SYMMETRIC)
    assert network.norm == "frozen"
    found, measured = estimate(frozen, SIZE), measure(frozen, SIZE)
    assert replace(found, activations=0) == replace(measured, activations=0)
    assert found.gradients < estimated("fixed").gradients  # scale and shift have none
    assert found.activations == pytest.approx(measured.activations, rel=0.1)


def test_what_is_held_follows_from_the_parameters() -> None:
    small = case()
    tasks = small.config.make_tasks(SYMMETRIC)
    model = small.config.make_model(SYMMETRIC, tasks)
    size = 4 * sum(parameter.numel() for parameter in model.parameters())
    shared = 4 * sum(parameter.numel() for parameter in model.groups()[BACKBONE])
    fixed, by_gradients = estimated("fixed"), estimated("pcgrad")
    assert fixed.gradients == size
    assert fixed.parameters == size + sum(buffer.nbytes for buffer in model.buffers())
    counters = 4 * len(list(model.parameters()))  # AdamW's steps
    assert fixed.optimiser == 2 * size + counters
    assert by_gradients.gradients == size + shared  # two rows of the backbone instead of one gradient


def test_one_task_needs_less_than_all() -> None:
    assert estimated("fixed", "steering").activations < estimated("fixed").activations


def test_the_verdict_has_a_margin() -> None:
    assert Estimate(0, 0, 0, activations=int(0.8 * CARD)).fits
    assert not Estimate(0, 0, 0, activations=int(0.97 * CARD)).fits


def test_a_smaller_micro_batch_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def halfway(case: Case, size: tuple[int, int], micro_batch_size: int | None = None) -> Estimate:
        return Estimate(0, 0, 0, activations=int(0.5 * CARD) * (micro_batch_size or case.micro_batch_size))

    monkeypatch.setattr("benchmarks.memory.estimate", halfway)
    assert micro_batch_that_fits(case(), SIZE) == 1
    found = row(case(), SIZE)
    assert (found["fits"], found["micro_batch_that_fits"]) == (False, 1)
    assert "no; with 1" in memory_table({"size": SIZE, "rows": [found]})


def test_the_peak_counts_what_is_alive_at_once() -> None:
    def one_after_the_other() -> None:
        for _ in range(3):
            torch.empty(1_000_000, dtype=torch.uint8)

    assert allocated_peak(one_after_the_other) == pytest.approx(1_000_000, rel=0.01)
    assert allocated_peak(lambda: [torch.empty(1_000_000, dtype=torch.uint8) for _ in range(3)]) == pytest.approx(
        3_000_000, rel=0.01
    )


def test_balancing_table() -> None:
    rows = [{"method": "fixed", "step_ms": 1.0, "time_ratio": 1.0, "peak_mb": 20.04, "memory_ratio": 1.0}]
    assert balancing_table({"rows": rows}).splitlines()[-1] == "| fixed | 1.00 | 20.0 | 1.00 |"
