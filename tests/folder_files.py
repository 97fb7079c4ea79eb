"""Tiny data sets in folders, written by hand, and a run of preprocessing/folders.py on them in this process."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from datasets.files import read_json
from datasets.frames import Frame
from datasets.processed import ProcessedData
from preprocessing.folders import main

SIZE = (8, 6)  # W, H of processed files
RNG = np.random.default_rng(0)


def write_array(path: Path, array: np.ndarray, **options: Any) -> Path:
    """By the ending: a .png or .jpg of the array's type, or a .npy."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, array, allow_pickle=False)
    else:
        Image.fromarray(array).save(path, **options)
    return path


def write_text(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def picture(width: int = 16, height: int = 12) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, 3), np.uint8)


def write_recipe(folder: Path, recipe: Any) -> Path:
    return write_text(
        folder / "recipe.yaml", recipe if isinstance(recipe, str) else yaml.safe_dump(recipe, sort_keys=False)
    )


def run(recipe: Path, root: Path, processed: ProcessedData, *flags: str) -> int:
    """The exit code; one worker, in this process, and the size above unless the flags say otherwise."""
    roots = ["--data-root", str(root), "--processed-root", str(processed.root)]
    return main(["--recipe", str(recipe), *roots, "--size", *map(str, SIZE), "--threads", "1", *flags])


def json_label(processed: ProcessedData, kind: str, scene: str, id: str) -> Any:
    return json.loads(processed.read(kind, Frame(processed.name, scene, id)))


def array_label(processed: ProcessedData, kind: str, scene: str, id: str) -> np.ndarray:
    return processed.read_array(kind, Frame(processed.name, scene, id))


def names(processed: ProcessedData, kind: str) -> list[str]:
    return [frame.in_dataset for frame in processed.frames(kind)]


def failures(processed: ProcessedData, kind: str) -> dict[str, str]:
    """Frame -> reason, as the report has them."""
    return {failure["frame"]: failure["reason"] for failure in read_json(processed.report_path(kind))["failures"]}


def slow_nearest(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pixel by pixel: the old pixel that holds the centre of the new one."""
    height, width = values.shape
    new = np.zeros((size[1], size[0]), values.dtype)
    for y in range(size[1]):
        for x in range(size[0]):
            new[y, x] = values[int((y + 0.5) * height / size[1]), int((x + 0.5) * width / size[0])]
    return new


def slow_sparse(metres: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Measurement by measurement (0 = none): the pixel that its centre falls in, the nearest wins; metres x 256."""
    height, width = metres.shape
    new = np.zeros((size[1], size[0]), np.uint16)
    for y, x in np.argwhere(metres > 0):
        row, column = int((y + 0.5) * size[1] / height), int((x + 0.5) * size[0] / width)
        value = round(256 * float(metres[y, x]))
        if new[row, column] == 0 or value < new[row, column]:
            new[row, column] = value
    return new
