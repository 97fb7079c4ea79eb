"""The memory estimate against real tensors, and the table's rules, on the demo's small network."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
import yaml

from benchmarks.memory import CARD, Case, Estimate, Speed, estimate, main, measure, micro_batch_that_fits, row
from benchmarks.readme import balancing_table, memory_table
from benchmarks.steps import allocated_peak
from datasets.a2d2.spec import LABELS
from errors import run_as_script
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
    return Case("small", config.of_mode(mode))


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
    frozen = Case("frozen", config.model_copy(update={"network": network}))
    assert network.norm == "frozen"
    found, measured = estimate(frozen, SIZE), measure(frozen, SIZE)
    assert replace(found, activations=0) == replace(measured, activations=0)
    assert found.gradients < estimated("fixed").gradients  # scale and shift have none
    assert found.activations == pytest.approx(measured.activations, rel=0.1)


def test_a_moving_average_is_as_large_as_the_network() -> None:
    config = case().config.model_copy(update={"training": TrainingConfig(epochs=1, ema=0.9)})
    found, plain = estimate(Case("averaged", config), SIZE), estimated()
    assert replace(found, parameters=plain.parameters) == plain
    assert found.parameters == 2 * plain.parameters


def test_what_is_held_follows_from_the_parameters() -> None:
    small = case()
    tasks = small.config.make_tasks(LABELS)
    model = small.config.make_model(tasks)
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
    assert Estimate(0, 0, 0, activations=int(0.8 * CARD)).fits(CARD)
    assert not Estimate(0, 0, 0, activations=int(0.97 * CARD)).fits(CARD)


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


# ---- one's own config ---------------------------------------------------------------------------------------------


@pytest.fixture
def config(tmp_path: Path) -> Path:
    content = case().config.model_dump(mode="json")
    content["data"]["size"] = list(SIZE)
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    """Exit status."""
    monkeypatch.setattr("sys.argv", ["benchmarks.memory", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        run_as_script(main)
    return end.value.code


def test_ones_own_config(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu, results = tmp_path / "own_gpu.yaml", tmp_path / "results.json"
    gpu.write_text("{workers: 1, precision: auto, micro_batch_size: {symmetric: 1}}")
    arguments = ["--gpu", gpu, "--train-mode", "steering", "--set", "batch_size=4", "--json", results]
    assert run(monkeypatch, "--config", config, *arguments, "--frames", "500", "--peak-tflops", "0.001") == 0
    printed, found = capsys.readouterr().out, yaml.safe_load(results.read_text())
    (memory,), (speed,) = found["rows"], found["speed"]
    assert "An estimate, nothing is measured: epochs of 500 frames at 0.4 of 0.001 TFLOP/s" in printed
    assert (memory["case"], memory["micro_batch_size"], found["size"]) == ("symmetric: steering", 1, list(SIZE))
    assert (speed["samples_a_step"], speed["flops_of_step"]) == (4, 4 * speed["flops_of_frame"])
    assert speed["hours_of_epoch"] == pytest.approx(500 * speed["flops_of_frame"] / 0.4e9 / 3600)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--train-mode", "box"], "--train-mode needs --config"),
        (["--frames", "0"], "--frames needs --config"),
        (["--card", "0"], "--card 0.0: must be above 0"),
        (["--config", "no.yaml"], "no.yaml can't be read: No such file or directory"),
        (["--config", "OWN", "--frames", "0"], "--frames 0: an epoch has at least one"),
        (["--config", "OWN", "--utilisation", "1.5"], "--utilisation 1.5: a share of the peak, above 0 and at most 1"),
        (["--config", "OWN", "--peak-tflops", "nan"], "--peak-tflops nan: must be above 0"),
        (["--config", "OWN", "--train-mode", "box"], "--train-mode box: OWN trains symmetric, steering, segmentation"),
        (
            ["--config", "OWN", "--set", "sed=1"],
            "OWN with --set: sed: there is no such key (did you mean seed?); there are seed, data, augmentation, "
            "training, tasks, network, micro_batch_size, balancing, batch_size, learning_rate, weight_decay, frames",
        ),
        (
            ["--config", "OWN", "--set", "data.size=[60,64]"],
            "OWN: data.size: [60, 64] are no multiples of 32: the network halves them",
        ),
        (["--config", "OWN", "--check"], "--check measures the shipped configs: leave out --config"),
        (
            ["--config", "OWN", "--size", "64", "64"],
            "--size is for the shipped configs: use --set data.size=[W,H]",
        ),
    ],
)
def test_a_mistake_is_one_line(
    config: Path,
    arguments: list[str],
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(monkeypatch, *(str(config) if word == "OWN" else word for word in arguments)) == 2
    assert capsys.readouterr().err == f"error: {line}\n".replace("OWN", str(config))


def test_an_epoch_of_the_peak_for_an_hour() -> None:
    assert Speed(frames=3600, utilisation=0.5, peak_tflops=2.0).hours(1e12) == pytest.approx(1)


def test_automatic_precision_is_estimated_as_bf16() -> None:
    small = case()
    full = small.config.model_copy(update={"training": TrainingConfig(epochs=1, precision="fp32")})
    assert (small.precision, Case("full", full).precision) == ("bf16", "fp32")
