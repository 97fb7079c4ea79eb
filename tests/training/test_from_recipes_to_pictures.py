"""Three data sets in folders, each of another shape and with other labels, in one asymmetric run."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import evaluate
import train_asymmetric
import visualize
from datasets.processed import ProcessedData
from tests.folder_files import run as preprocess
from tests.folder_files import write_array, write_recipe, write_text
from tests.training.conftest import Printed
from training import checkpoint

FRAMES = 20
CONFIG = """\
data:
  size: [64, 32]
  split: {mode: time, fractions: [0.6, 0.3, 0.1], gap_frames: 0}
  workers: 0
training: {epochs: 1, images: 1}
network: {encoder: small, pretrained: none, channels: 8, layers: 1}
micro_batch_size: 2
backbone: {batch_size: 4, learning_rate: 0.001}
tasks:
  ground: {label: segmentation, from: [masks], batch_size: 4, learning_rate: 0.001}
  steering: {batch_size: 4, learning_rate: 0.001}
  depth: {batch_size: 4, learning_rate: 0.001}
  box: {batch_size: 4, learning_rate: 0.001, settings: {grid: 4, predictors: 2}}
"""


def write_masks(root: Path) -> dict:
    """Segmentation only, 80 x 60."""
    rng = np.random.default_rng(0)
    for number in range(FRAMES):
        write_array(root / "image" / f"{number}.png", rng.integers(0, 256, (60, 80, 3), np.uint8))
        write_array(root / "mask" / f"{number}.png", rng.integers(0, 3, (60, 80), np.uint8))
    mask = {"files": "mask/{id}.png", "classes": ["road", "grass", "sky"]}
    return {"name": "masks", "image": {"files": "image/{id}.png"}, "segmentation": mask}


def write_angles(root: Path) -> dict:
    """Steering only, 120 x 30, an angle a frame."""
    rng, lines = np.random.default_rng(1), ["file,turn"]
    for number in range(FRAMES):
        write_array(root / "pictures" / f"p{number}.jpg", rng.integers(0, 256, (30, 120, 3), np.uint8))
        lines.append(f"pictures/p{number}.jpg,{rng.uniform(-1, 1):.3f}")
    write_text(root / "log.csv", "\n".join(lines) + "\n")
    steering = {"csv": "log.csv", "frame": "file", "angle": "turn", "factor": -25.0}
    return {"name": "angles", "image": {"files": "pictures/{id}.jpg"}, "steering": steering}


def write_street(root: Path) -> dict:
    """Sparse depth and boxes, 40 x 50."""
    rng = np.random.default_rng(2)
    for number in range(FRAMES):
        write_array(root / "rgb" / f"{number:03d}.png", rng.integers(0, 256, (50, 40, 3), np.uint8))
        depth = np.zeros((50, 40), np.uint16)
        depth[rng.integers(0, 50, 60), rng.integers(0, 40, 60)] = rng.integers(300, 10_000, 60)
        write_array(root / "depth" / f"{number:03d}.png", depth)
        boxes = [f"{rng.integers(2)} 0.5 0.5 {rng.uniform(0.2, 0.8):.2f} 0.4" for _ in range(2)]
        write_text(root / "boxes" / f"{number:03d}.txt", "\n".join(boxes) + "\n")
    depth = {"files": "depth/{id}.png", "units_per_metre": 256, "invalid": 0, "sparse": True, "range": [1.0, 60.0]}
    box = {"files": "boxes/{id}.txt", "format": "yolo", "classes": ["car", "bike"]}
    return {"name": "street", "image": {"files": "rgb/{id}.png"}, "depth": depth, "box": box}


@pytest.fixture
def roots(tmp_path: Path) -> list[ProcessedData]:
    found = []
    for name, write in (("masks", write_masks), ("angles", write_angles), ("street", write_street)):
        folder, processed = tmp_path / name, ProcessedData(tmp_path / "processed" / name)
        recipe = write_recipe(folder, write(folder))
        assert preprocess(recipe, folder, processed, "--size", "64", "32") == 0
        found.append(processed)
    return found


def test_from_recipes_to_pictures(roots: list[ProcessedData], tmp_path: Path, call: Callable[..., Printed]) -> None:
    given = [flag for root in roots for flag in ("--processed-root", str(root.root))]
    config = write_text(tmp_path / "config.yaml", CONFIG)
    own = ["--config", str(config), "--runs-root", str(tmp_path / "runs"), "--wandb", "disabled", "--device", "cpu"]
    done = call(train_asymmetric.main, *own, *given)
    assert done.code == 0, done.err
    content = checkpoint.load(tmp_path / "runs" / "asymmetric" / "last.pt")
    # every image carries the labels of its own data set alone
    each = round(FRAMES * 0.6)
    assert content["updates"]["seen"] == {"backbone": 3 * each, **dict.fromkeys(content["bound"], each)}

    report = tmp_path / "report.json"
    best = str(tmp_path / "runs" / "asymmetric" / "best.pt")
    done = call(evaluate.main, best, *given, "--device", "cpu", "--workers", "0", "--json", str(report))
    assert done.code == 0, done.err
    numbers = json.loads(report.read_text())["asymmetric"]
    assert set(numbers) == {"ground", "steering", "depth", "box"}
    assert {name for name in numbers["ground"] if name.startswith("iou/")} == {"iou/road", "iou/grass", "iou/sky"}
    assert {"ap/car", "ap/bike"} <= set(numbers["box"])

    for sample, rows in (("masks/all/3", 4), ("angles/all/p3", 4), ("street/all/003", 4)):
        out = tmp_path / "pictures" / sample.replace("/", "_")
        arguments = ["--sample", sample, "--checkpoint", f"net={best}", "--out", str(out), "--device", "cpu"]
        done = call(visualize.main, *arguments, *given)
        assert done.code == 0, done.err
        assert len(list(out.rglob("net.png"))) == rows
