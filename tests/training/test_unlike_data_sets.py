"""One network on two data sets of unlike brightness whose labels are disjoint: as good as on each alone.

And with batch statistics that are learnt while samples come ordered by data set it is not: the test can fail.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

import train_asymmetric
from datasets.processed import ProcessedData
from datasets.samples import Sample
from datasets.sampling import Block, epoch_order
from tests.small_roots import write_root
from tests.training.conftest import Printed
from training import checkpoint, loop

Call = Callable[..., Printed]
Alone = Callable[[int], dict[str, float]]

CONFIG = """\
data:
  size: [64, 64]
  split: {mode: time, fractions: [0.6, 0.3, 0.1], gap_frames: 0}
  workers: 0
training: {epochs: 8, log_every: 100, images: 0, validate_every: 8, precision: fp32}
network: {encoder: small, pretrained: none, channels: 16, layers: 1}
micro_batch_size: 4
backbone: {batch_size: 4, learning_rate: 0.004}
tasks:
  segmentation: {from: [night], batch_size: 4, learning_rate: 0.004}
  depth: {from: [day], batch_size: 4, learning_rate: 0.004, weight: 4.0}
"""
FRAMES = 40
SEEDS = (0, 1, 2)
AT_LEAST = 0.95  # of what the same network reaches on the one data set


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> list[ProcessedData]:
    folder = tmp_path_factory.mktemp("unlike")
    return [
        write_root(folder / "night", "night", ("segmentation",), FRAMES),
        write_root(folder / "day", "day", ("depth",), FRAMES, brightness=150, seed=1),
    ]


def results_of(call: Call, folder: Path, roots: list[ProcessedData], seed: int, *more: str) -> dict[str, float]:
    """Task -> its deciding metric on the validation frames, after training; the higher the better."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(CONFIG)
    data = [flag for root in roots for flag in ("--processed-root", str(root.root))] + ["--device", "cpu"]
    run = ["--config", folder / "config.yaml", "--runs-root", folder / "runs", "--wandb", "disabled", "--name", "run"]
    trained = call(train_asymmetric.main, *run, *data, "--set", f"seed={seed}", *more)
    assert trained.code == 0, trained.err
    found = checkpoint.load(folder / "runs/run/last.pt")["best"][
        "results"
    ]  # of the one validation, after the last epoch
    better = {"depth": lambda numbers: 1 / numbers["abs_rel"], "segmentation": lambda numbers: numbers["miou"]}
    return {task: better[task](numbers) for task, numbers in found.items()}


@pytest.fixture(scope="module")
def known() -> dict[int, dict[str, float]]:
    """Seed -> what was reached alone, as far as a test has asked."""
    return {}


@pytest.fixture
def alone(call: Call, tmp_path: Path, roots: list[ProcessedData], known: dict[int, dict[str, float]]) -> Alone:
    """Seed -> the results of the same network, trained on each data set by itself."""
    night, day = roots

    def results(seed: int) -> dict[str, float]:
        if seed not in known:
            first = results_of(call, tmp_path / "night", [night], seed, "--set", "tasks.depth=null")
            known[seed] = first | results_of(call, tmp_path / "day", [day], seed, "--set", "tasks.segmentation=null")
        return known[seed]

    return results


@pytest.mark.parametrize("seed", SEEDS)
def test_together_they_are_as_good_as_alone(
    call: Call, roots: list[ProcessedData], alone: Alone, tmp_path: Path, seed: int
) -> None:
    by_itself = alone(seed)
    together = results_of(call, tmp_path / "together", roots, seed)
    print({task: together[task] / by_itself[task] for task in by_itself})
    assert {task: together[task] / by_itself[task] >= AT_LEAST for task in by_itself} == dict.fromkeys(by_itself, True)


def test_ordered_by_data_set_and_with_trained_norms_they_are_not(
    call: Call, roots: list[ProcessedData], alone: Alone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_itself = alone(SEEDS[0])

    def sorted_blocks(samples: list[Sample], block_size: int, *rest: object) -> list[Block]:
        visits = [visit for block in epoch_order(samples, block_size, *rest) for visit in block]
        visits.sort(key=lambda visit: samples[visit.place].frame.dataset)
        return [visits[start : start + block_size] for start in range(0, len(visits), block_size)]

    monkeypatch.setattr(loop, "epoch_order", sorted_blocks)
    trained_norms = ("--set", "network.norm=train", "--force-trained-norms")
    together = results_of(call, tmp_path / "ordered", roots, SEEDS[0], *trained_norms)
    print({task: together[task] / by_itself[task] for task in by_itself})
    assert min(together[task] / by_itself[task] for task in by_itself) < AT_LEAST
