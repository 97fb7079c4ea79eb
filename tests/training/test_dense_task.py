"""A fifth task with dense labels in a multi-task asymmetric run, on a data set of its own: one class, one line in
TASKS, and the dense head that is there. Nothing else is told of it."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import evaluate
import train_asymmetric
import train_single_task
import visualize
from datasets.processed import ProcessedData
from tasks import TASKS
from tests.small_roots import SIZE, write_root
from tests.toy_edges import KIND, UNKNOWN, EdgesTask, edges_of, write_edges
from tests.training.conftest import Printed
from training import checkpoint

Call = Callable[..., Printed]

CONFIG = f"""\
data:
  size: [64, 64]
  split: {{mode: time, fractions: [0.7, 0.3, 0.0], gap_seconds: 0.0, gap_frames: 1}}
  workers: 0
augmentation: {{brightness: 0.0, contrast: 0.0, saturation: 0.0}}
training: {{epochs: 12, log_every: 1, images: 1, validate_every: 6}}
network: {{encoder: small, pretrained: none, channels: 16, layers: 1}}
micro_batch_size: 4
backbone: {{batch_size: 8, learning_rate: 0.01}}
tasks:
  segmentation: {{batch_size: 4, learning_rate: 0.01}}
  {KIND}: {{batch_size: 4, learning_rate: 0.01, settings: {{edge_weight: 8}}}}
"""


@pytest.fixture
def flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The roots: a data set with masks alone, and one with edges alone. The task is registered."""
    monkeypatch.setitem(TASKS, KIND, EdgesTask)
    write_root(tmp_path / "masks", "masks", ("segmentation",))
    write_edges(write_root(tmp_path / "lines", "lines", (), seed=1))
    roots = [part for name in ("masks", "lines") for part in ("--processed-root", str(tmp_path / name))]
    return ["--data-root", str(tmp_path), *roots, "--device", "cpu"]


def train(call: Call, main: Callable[[], None], folder: Path, *flags: str) -> Printed:
    path = folder / "config.yaml"
    path.write_text(CONFIG)
    return call(main, *flags, "--config", str(path), "--runs-root", str(folder / "runs"), "--wandb", "disabled")


def test_it_is_trained_evaluated_and_drawn_beside_another_task(flags: list[str], tmp_path: Path, call: Call) -> None:
    trained = train(call, train_asymmetric.main, tmp_path, *flags)
    assert (trained.code, trained.err) == (0, "")
    run = tmp_path / "runs" / "asymmetric"
    content = checkpoint.load(run / "best.pt")
    assert content["bound"] == {"segmentation": ["masks"], KIND: ["lines"]}
    assert min(content["updates"]["seen"][task] for task in ("segmentation", KIND)) > 0
    assert list(run.glob(f"images/*/{KIND}-*.jpg"))

    report = tmp_path / "report.json"
    evaluated = call(evaluate.main, str(run / "last.pt"), *flags, "--workers", "0", "--json", str(report))
    assert (evaluated.code, evaluated.err) == (0, "")
    numbers = json.loads(report.read_text())
    assert numbers["asymmetric"][KIND]["f1"] > max(0.3, 2 * numbers["constant"][KIND]["f1"])
    assert numbers["asymmetric"]["segmentation"]["miou"] > numbers["constant"]["segmentation"]["miou"]

    frame = next(frame for frame in content["split"]["val"] if frame.startswith("lines/"))
    drawn = call(
        visualize.main, *flags, "--sample", frame, "--checkpoint", f"ours={run / 'last.pt'}", "--out", str(tmp_path)
    )
    assert (drawn.code, drawn.err) == (0, "")
    (folder,) = (tmp_path / KIND).iterdir()
    # the default picture: the map in the place of the image
    assert all(len(np.unique(cv2.imread(str(folder / name)))) > 1 for name in ("truth.png", "ours.png"))


def test_it_has_no_network_of_its_own(flags: list[str], tmp_path: Path, call: Call) -> None:
    sections = {KIND: {"batch_size": 4, "micro_batch_size": 4, "learning_rate": 0.01}}
    path = tmp_path / "single.yaml"
    path.write_text(json.dumps({"training": {"epochs": 1}, "data": {"size": SIZE}, "tasks": sections}))
    refused = call(train_single_task.main, *flags, "--config", str(path), "--train-mode", KIND)
    assert refused.code == 2
    assert f"{KIND}.network must name one of unet" in refused.err


def test_the_toy_itself(tmp_path: Path) -> None:
    """Its own rules hold: unknown pixels count nowhere, and what is mirrored is mirrored."""
    processed: ProcessedData = write_root(tmp_path, "lines", (), 1)
    label = edges_of(processed.read_array("camera", processed.frames("camera")[0]))
    assert 0 < label.mean() < 0.2
    task = EdgesTask()
    target = task.collate([label, None])
    assert np.array_equal(task.hflip(target, torch.tensor([True, True]))["edges"][0], label[:, ::-1])
    losses, valid = task.loss(torch.zeros(2, 1, 64, 64), target)
    assert valid.tolist() == [True, False]
    assert losses[1] == 0
    assert (target["edges"][1] == UNKNOWN).all()
    metric = task.metric()
    metric.update((target["edges"] == 1).float(), target)
    assert metric.compute() == {"f1": 1.0}
