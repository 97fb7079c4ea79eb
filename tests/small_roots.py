"""Small processed roots written by hand, each a data set of its own with labels of some kinds, that can be learnt."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from datasets.frames import Frame
from datasets.processed import ProcessedData

SIZE = (64, 64)


def write_root(
    root: Path,
    name: str,
    kinds: tuple[str, ...],
    frames: int = 24,
    *,
    classes: tuple[str, ...] = ("ground", "thing"),
    brightness: int = 0,
    seed: int = 0,
) -> ProcessedData:
    """Images of a bright square on dark ground (or `brightness` brighter), somewhere; labels that say where and what.

    segmentation: the square's pixels; depth: the nearer, the larger the square, at every third pixel; box: the square;
    steering: the angle in which it stands. The scenes are `a` and `b`.
    """
    processed, rng = ProcessedData(root), np.random.default_rng(seed)
    processed.describe(name)
    colours = ["#404040", "#ff8000", "#00a0ff", "#40ff40"][: len(classes)]
    settings: dict[str, dict[str, Any]] = {
        "camera": {"size": list(SIZE), "format": "npy", "resolution": [128, 128]},
        "segmentation": {"size": list(SIZE), "classes": list(classes), "colours": colours},
        "depth": {"size": list(SIZE), "range": [1.0, 40.0]},
        "box": {"classes": ["thing"], "colours": ["#ff8000"]},
        "steering": {"unit": "deg"},
    }
    for kind in ("camera", *kinds):
        for scene in ("a", "b"):
            (root / kind / scene).mkdir(parents=True, exist_ok=True)
        processed.settings_path(kind).write_text(json.dumps(settings[kind]))
    for number in range(frames):
        frame = Frame(name, "ab"[number % 2], f"{number:03d}")
        side = int(rng.integers(12, 30))
        left, top = rng.integers(0, 64 - side, 2).tolist()
        labels = labels_of(left, top, side)
        image = np.full((64, 64, 3), 30 + brightness, np.uint8)
        image[top : top + side, left : left + side] = 90 + brightness
        np.save(processed.path("camera", frame), image + rng.integers(0, 10, image.shape).astype(np.uint8))
        for kind in kinds:
            path = processed.path(kind, frame)
            if isinstance(labels[kind], np.ndarray):
                np.save(path, labels[kind])
            else:
                path.write_text(json.dumps(labels[kind]))
    return processed


def labels_of(left: int, top: int, side: int) -> dict[str, Any]:
    segmentation, depth = np.zeros((64, 64), np.uint8), np.zeros((64, 64), np.uint16)
    segmentation[top : top + side, left : left + side] = 1
    depth[::3, ::3] = 256 * 300 // side
    return {
        "segmentation": segmentation,
        "depth": depth,
        "box": {"size": [64, 64], "boxes": [{"class": "thing", "bbox": [left, top, left + side, top + side]}]},
        "steering": {"unit": "deg", "angles": [float(32 - left - side / 2)]},
    }
