"""A results.json with made-up numbers, and a study of seconds."""

import random
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from studying.config import load_study

STUDY = """\
name: tiny
question: Does sharing help?
data: {roots: [rooms], about: made-up squares, limits: They are made up.}
seeds: [1, 2]
scripts: {symmetric: configs/nyuv2/symmetric.yaml, asymmetric: configs/nyuv2/asymmetric.yaml}
set:
  data.size: [64, 64]
  data.split: {mode: time, fractions: [0.6, 0.2, 0.2]}
  data.workers: 0
  training.epochs: 1
  training.log_every: 1
  training.images: 0
  network.channels: 16
  network.layers: 1
tuning: {seed: 0, rates: [0.004]}
rows:
  together: {script: asymmetric, labels: one, set: {data.labels.regime: one, training.similarity_every: 1}}
  "{task} alone":
    each: {task: [segmentation, depth]}
    script: symmetric
    mode: "{task}"
    labels: "{task} of half of the frames"
    curve: alone
    share: 0.5
    set: {data.labels.regime: one}
comparisons:
  sharing:
    row: together
    against: {segmentation: segmentation alone, depth: depth alone}
    asks: Does it help?
    expected: better
primary: sharing
"""
TASKS = {
    "segmentation": {"kind": "segmentation", "metric": "miou", "title": "mIoU", "higher_is_better": True},
    "depth": {"kind": "depth", "metric": "abs_rel", "title": "AbsRel", "higher_is_better": False},
}
MADE = {
    "commit": "0123456789abcdef",
    "device": "a processor",
    "instructions": "AVX2",
    "threads": 1,
    "versions": {"torch": "2.14.1"},
}


def write_study(folder: Path, text: str = STUDY) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(text)
    return path


def made_up_results(seeds: int, gain: float, spread: float) -> dict[str, Any]:
    """Values that differ by `spread` among the seeds; together is better than alone by `gain` in each."""
    with TemporaryDirectory() as folder:
        config = load_study(write_study(Path(folder))).model_dump(mode="json")
    config["seeds"] = list(range(1, seeds + 1))
    runs = []
    for seed in config["seeds"]:
        value = 0.4 + spread * random.Random(seed).random()
        runs.append(run("together", seed, {"segmentation": {"miou": value + gain}, "depth": {"abs_rel": value - gain}}))
        runs.append(run("segmentation alone", seed, {"segmentation": {"miou": value}}))
        runs.append(run("depth alone", seed, {"depth": {"abs_rel": value}}))
    return {
        "format": 1,
        "study": "tiny",
        "config": config,
        "tasks": TASKS,
        "chosen": {row: {"learning_rate": 0.004, "weight_decay": 0.01} for row in config["rows"]},
        "constant": {"segmentation": {"miou": 0.1}, "depth": {"abs_rel": 0.9}},
        "planned": {"tuning": 3, "final": 3 * seeds},
        "failed": [],
        "tuning": [],
        "runs": runs,
    }


def run(row: str, seed: int, test: dict[str, Any]) -> dict[str, Any]:
    return {
        "row": row,
        "seed": seed,
        "choice": {"learning_rate": 0.004, "weight_decay": 0.01},
        "test": test,
        "labels_seen": dict.fromkeys(test, 120 + seed),
        "images_seen": 240,
        "losses": {task: [[8, 1.0 + seed], [16, 0.5]] for task in test},
        "similarity": {"segmentation/depth": [[8, 0.1]]} if len(test) == 2 else {},
        "seconds": {"train": 30.0, "evaluate": 6.0},
        "made": MADE,
    }
