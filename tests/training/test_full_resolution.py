"""evaluate.py --full-resolution: maps judged by the labels at the size of their own raw files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import evaluate
import train_single_task
import train_symmetric
from datasets.frames import Frame
from datasets.processed import ProcessedData
from datasets.spec import IGNORE
from preprocessing.depth_preprocess import Depth
from preprocessing.segmentation import Segmentation
from tasks.depth import DepthTask
from tasks.segmentation import SegmentationTask
from tasks.steering import SteeringTask
from tests.a2d2 import DEPTH, SEGMENTATION
from tests.folder_files import run as preprocess
from tests.folder_files import write_array, write_recipe, write_text
from tests.raw_files import SIZE
from tests.stages import run as run_stage
from tests.training.conftest import Printed, Workplace
from training.raw_labels import converter_of
from training.restore import Restored

Call = Callable[..., Printed]
SYMMETRIC = """\
data:
  size: [64, 64]
  split: {mode: time, fractions: [0.7, 0.2, 0.1], gap_seconds: 1.0}
  workers: 0
training: {epochs: 1, images: 0}
network: {encoder: small, pretrained: none, channels: 8, layers: 1}
batch_size: 4
micro_batch_size: 4
learning_rate: 0.01
tasks:
  segmentation: {}
  depth: {}
"""


# ---- enlarging --------------------------------------------------------------------------------------------------


def test_logits_are_enlarged_and_then_compared() -> None:
    task = SegmentationTask(spec=SEGMENTATION)
    logits = torch.randn(1, 38, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    target = {"classes": torch.zeros(1, 6, 8, dtype=torch.uint8)}
    found = task.decode(task.at_size_of(target, logits))[0]
    for row in range(6):
        for column in range(8):
            y, x = (min(max((at + 0.5) / 2 - 0.5, 0), size - 1) for at, size in ((row, 3), (column, 4)))
            top, left = int(y), int(x)
            down, right = y - top, x - left
            bottom, further = min(top + 1, 2), min(left + 1, 3)
            corners = [
                (logits[0, :, top, left], (1 - down) * (1 - right)),
                (logits[0, :, top, further], (1 - down) * right),
                (logits[0, :, bottom, left], down * (1 - right)),
                (logits[0, :, bottom, further], down * right),
            ]
            assert found[row, column] == sum(value * weight for value, weight in corners).argmax()


def test_what_has_the_size_already_stays_as_it_is() -> None:
    logits = torch.randn(1, 38, 3, 4)
    same = SegmentationTask(spec=SEGMENTATION).at_size_of({"classes": torch.zeros(1, 3, 4)}, logits)
    angles = torch.randn(2, 10)
    assert same is logits
    assert SteeringTask().at_size_of({}, angles) is angles


def test_constants_are_enlarged() -> None:
    classes = SegmentationTask(spec=SEGMENTATION).constant_at_size_of(
        {"classes": torch.zeros(1, 2, 6, dtype=torch.uint8)}, torch.tensor([[[7, 37, 3]]], dtype=torch.uint8)
    )
    assert classes.tolist() == [[[7, 7, 37, 37, 3, 3]] * 2]
    depth = DepthTask(spec=DEPTH).constant_at_size_of({"depth": torch.zeros(1, 1, 4)}, torch.tensor([[[2.0, 4.0]]]))
    assert depth.tolist() == [[[2.0, 2.5, 3.5, 4.0]]]


# ---- labels -----------------------------------------------------------------------------------------------------


@pytest.fixture
def native(workplace: Workplace, tmp_path: Path) -> ProcessedData:
    """The labels of A2D2, preprocessed at the camera's resolution."""
    processed = ProcessedData(tmp_path / "native")
    for stage in (Segmentation(), Depth()):
        assert run_stage(stage, workplace.raw, processed, "--size", *map(str, SIZE)) == 0
    return processed


@pytest.mark.parametrize("kind", ["segmentation", "depth"])
def test_a2d2s_are_those_that_preprocessing_makes_at_the_cameras_resolution(
    workplace: Workplace, native: ProcessedData, kind: str
) -> None:
    convert = converter_of(workplace.processed, kind, workplace.raw.root)
    frames = native.frames(kind)
    assert frames
    for frame in frames:
        assert (convert(frame) == native.read_array(kind, frame)).all()


COLOURS = {"#102030": "road", "#405060": "grass"}


@pytest.mark.parametrize("masks", ["ids", "colours"])
def test_those_of_a_recipe_keep_the_size_of_their_files(tmp_path: Path, masks: str) -> None:
    """Each its own; as the settings know the recipe, without its file."""
    rng, sizes = np.random.default_rng(0), {"a": (12, 16), "b": (20, 10)}
    classes = {name: rng.integers(0, 2, size) for name, size in sizes.items()}
    metres = {name: rng.integers(1, 9, size) for name, size in sizes.items()}
    for name, size in sizes.items():
        write_array(tmp_path / "image" / f"{name}.png", rng.integers(0, 256, (*size, 3), np.uint8))
        shown = [np.frombuffer(bytes.fromhex(colour[1:]), np.uint8) for colour in COLOURS]
        mask = np.array(shown)[classes[name]] if masks == "colours" else (classes[name] * 5).astype(np.uint8)
        write_array(tmp_path / "mask" / f"{name}.png", mask)
        write_array(tmp_path / "depth" / f"{name}.npy", metres[name].astype(np.float32))
    meaning = {"colour_table": COLOURS} if masks == "colours" else {"ids": {0: "road", 5: "grass"}}
    recipe = {
        "name": "fields",
        "image": {"files": "image/{id}.png"},
        "segmentation": {"files": "mask/{id}.png", "classes": ["road", "grass"], **meaning},
        "depth": {"files": "depth/{id}.npy", "range": [1.0, 60.0]},
    }
    processed = ProcessedData(tmp_path / "processed")
    assert preprocess(write_recipe(tmp_path, recipe), tmp_path, processed, "--size", "8", "6") == 0
    for name in sizes:
        frame = Frame("fields", "all", name)
        assert (converter_of(processed, "segmentation", tmp_path)(frame) == classes[name]).all()
        assert (converter_of(processed, "depth", tmp_path)(frame) == 256 * metres[name]).all()


# ---- evaluate.py ------------------------------------------------------------------------------------------------


def run(call: Call, place: Workplace, *arguments: Any) -> Printed:
    return call(evaluate.main, *map(str, arguments), *place.roots(), "--workers", "0")


@pytest.fixture
def trained(workplace: Workplace, call: Call) -> Path:
    """The best checkpoint of a network for segmentation and depth."""
    config = write_text(workplace.dir / "symmetric.yaml", SYMMETRIC)
    flags = ["--config", str(config), "--runs-root", str(workplace.runs), "--wandb", "disabled"]
    assert call(train_symmetric.main, *flags, *workplace.roots()).code == 0
    return workplace.runs / "symmetric" / "best.pt"


def test_predictions_are_judged_at_the_size_of_the_raw_labels(
    workplace: Workplace, native: ProcessedData, call: Call, trained: Path
) -> None:
    report = workplace.dir / "report.json"
    printed = run(call, workplace, trained, "--full-resolution", "--json", report)
    assert (printed.code, printed.err) == (0, "")
    assert "the labels' own size" in printed.out
    numbers = json.loads(report.read_text())

    network = Restored.load(trained, workplace.raw, [workplace.processed])
    hits = pixels = 0
    errors: list[float] = []
    for frame in network.split.val:
        image = network.roots["a2d2"].load(frame).permute(2, 0, 1)[None]
        with torch.inference_mode():
            outputs = network.model(image, dict.fromkeys(network.tasks))
        width, height = SIZE
        enlarged = {task: F.interpolate(output, (height, width), mode="bilinear") for task, output in outputs.items()}
        classes, truth = enlarged["segmentation"][0].argmax(0).numpy(), native.read_array("segmentation", frame)
        hits += (classes == truth).sum()
        pixels += (truth != IGNORE).sum()
        metres = native.read_array("depth", frame) / 256
        evaluated = (metres >= 1) & (metres <= 80)
        predicted = enlarged["depth"][0, 0].numpy()[evaluated].clip(1, 80)
        errors += (np.abs(predicted - metres[evaluated]) / metres[evaluated]).tolist()
    assert numbers["symmetric"]["segmentation"]["accuracy"] == pytest.approx(hits / pixels, abs=1e-4)
    assert numbers["symmetric"]["depth"]["abs_rel"] == pytest.approx(np.mean(errors), rel=1e-5)
    assert numbers["runs"]["symmetric"]["judged_at"] == "the labels' own size"

    small = workplace.dir / "small.json"
    assert run(call, workplace, trained, "--json", small).code == 0
    for column in ("constant", "symmetric"):
        assert numbers[column]["depth"]["abs_rel"] != json.loads(small.read_text())[column]["depth"]["abs_rel"]


def test_a_label_whose_raw_file_is_gone_is_named(own_workplace: Workplace, call: Call) -> None:
    assert call(train_single_task.main, *own_workplace.flags("depth")).code == 0
    best = own_workplace.runs / "depth" / "best.pt"
    frame = json.loads((best.parent / "split.json").read_text())["val"][0]
    own_workplace.raw.path("lidar", Frame.parse(frame)).unlink()
    printed = run(call, own_workplace, best, "--full-resolution")
    assert printed.code == 0
    assert f"left out: {frame}: " in printed.err


def test_what_cannot_be_judged_so_is_one_line(workplace: Workplace, call: Call, tmp_path: Path) -> None:
    assert call(train_single_task.main, *workplace.flags("steering")).code == 0
    best = workplace.runs / "steering" / "best.pt"
    printed = run(call, workplace, best, "--full-resolution")
    assert (printed.code, printed.out) == (2, "")
    assert printed.err == "error: --full-resolution: no task of the checkpoints has labels that are maps\n"
    printed = run(call, workplace, best, "--full-resolution", "--batch-size", "2")
    assert printed.code == 2
    assert "leave --batch-size out" in printed.err


def test_raw_files_that_are_not_there(workplace: Workplace, call: Call, trained: Path, tmp_path: Path) -> None:
    flags = ["--processed-root", str(workplace.processed.root), "--device", "cpu", "--workers", "0"]
    printed = call(evaluate.main, str(trained), "--full-resolution", "--data-root", str(tmp_path / "empty"), *flags)
    assert (printed.code, printed.out) == (2, "")
    assert "no raw segmentation files of a2d2 below" in printed.err
    assert printed.err.count("\n") == 1
