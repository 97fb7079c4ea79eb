"""Processed labels written by hand, a few bytes each: what the tests of packs and copies feed on."""

import io
import json
from pathlib import Path

import numpy as np

from datasets.frames import Frame
from datasets.processed import ProcessedData

KINDS = ("camera", "segmentation", "depth", "box", "steering")
SHAPES = {"camera": (4, 6, 3), "segmentation": (4, 6), "depth": (4, 6)}
DTYPES = {"camera": np.uint8, "segmentation": np.uint8, "depth": np.uint16}


def array(kind: str, number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 30, SHAPES[kind]).astype(DTYPES[kind])


def content(kind: str, number: int) -> bytes:
    """A label's file; another number gives other bytes."""
    if kind not in SHAPES:
        return json.dumps({"kind": kind, "number": number, "padding": "x" * (number % 700)}).encode()
    file = io.BytesIO()
    np.save(file, array(kind, number))
    return file.getvalue()


def write_label(processed: ProcessedData, kind: str, frame: Frame, number: int) -> Path:
    path = processed.path(kind, frame)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content(kind, number))
    return path


def write_labels(processed: ProcessedData, frames: list[Frame]) -> None:
    """Labels of every kind, all different, with settings."""
    processed.describe("a2d2")
    for i, kind in enumerate(KINDS):
        for j, frame in enumerate(frames):
            write_label(processed, kind, frame, 1000 * i + j)
        processed.settings_path(kind).write_text(json.dumps({"made_with": kind, "size": [6, 4], "format": "npy"}))


def contents(processed: ProcessedData) -> dict[tuple[str, Frame], bytes | None]:
    """What reading gives of every frame that is listed."""
    return {(kind, frame): processed.read(kind, frame) for kind in KINDS for frame in processed.frames(kind)}


def label_paths(root: Path) -> dict[str, bytes]:
    """Loose label files: path below the root -> bytes."""
    found = (path for kind in KINDS for path in sorted((root / kind).rglob("0*")))
    return {str(path.relative_to(root)): path.read_bytes() for path in found}
