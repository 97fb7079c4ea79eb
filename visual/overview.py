"""Raw A2D2 as it lies there: sheets of frames with lidar, boxes and classes laid over them, and statistics of the set.

What preprocessing/overview.py writes.
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from datasets.a2d2.classes import BOX_CLASSES, BOX_COLOURS, SEMANTIC_CLASSES
from datasets.a2d2.geometry import Calibration, ImageMap
from datasets.a2d2.raw import RAW_KINDS, RawData
from datasets.a2d2.spec import LABELS, SEMANTIC_TABLE
from datasets.a2d2.stage import A2D2Stage
from datasets.frames import Frame
from datasets.spec import IGNORE
from errors import UserError, reason_of
from preprocessing.bounding_box import Boxes
from preprocessing.depth_preprocess import Depth
from preprocessing.segmentation import Segmentation
from progress import progress, warn
from tasks.base import Task
from tasks.box import BoxTask
from tasks.depth import DepthTask
from tasks.segmentation import SegmentationTask
from visual.pictures import picture_of
from visual.pictures.base import DrawOptions, Picture
from visual.sheet import Cell, sheet

WIDTH = 640  # px of each picture
COLUMNS: dict[str, tuple[type[A2D2Stage], type[Task]]] = {
    "lidar": (Depth, DepthTask),
    "boxes": (Boxes, BoxTask),
    "classes": (Segmentation, SegmentationTask),
}


# ---- contact sheet ------------------------------------------------------------------------------------------------


def contact_sheet(raw: RawData, frames: list[Frame]) -> np.ndarray:
    """A row a frame: what is measured, drawn over the undistorted image."""
    calibration = Calibration.read(raw.calibration_path)
    size = WIDTH, round(WIDTH * calibration.resolution[1] / calibration.resolution[0])
    settings = argparse.Namespace(size=size, measure="depth", splat=1)
    image_map, tools = ImageMap(calibration, size), {}
    for name, (stage_class, task_class) in COLUMNS.items():
        stage = stage_class()
        stage.prepare(stage.settings(settings, raw))
        tools[name] = stage, picture_of(task_class(spec=LABELS[stage.kind]))
    rows = {}
    for frame in frames:
        try:
            image = image_map.image(image_map.read(raw.path("camera", frame)))
        except (ValueError, OSError) as error:
            warn(f"left out: {raw.path('camera', frame)}: {reason_of(error)}")
            continue
        rows[frame.id] = [_cell(raw, frame, image, stage, picture) for stage, picture in tools.values()]
    if not rows:
        raise UserError(f"none of the frames {', '.join(map(str, frames))} can be read")
    return sheet(list(COLUMNS), rows)


def _cell(raw: RawData, frame: Frame, image: np.ndarray, stage: A2D2Stage, picture: Picture) -> Cell:
    path = raw.path(stage.raw_kind, frame)
    if not path.is_file():
        return Cell(picture.blank(image, DrawOptions()), f"no {stage.raw_kind} file")
    try:
        content = stage.convert(path).content
    except Exception as error:  # whatever a broken file raises: it is named, and the others are shown
        warn(f"failed: {path}: {reason_of(error)}")
        return Cell(picture.blank(image, DrawOptions()), f"{path.name} can't be read")
    if content is None:
        return Cell(picture.blank(image, DrawOptions()), "nothing measured")
    target = picture.task.collate([picture.task.parse(content)])
    return Cell(picture.draw(image, None, target, DrawOptions()))


# ---- statistics of the whole set ------------------------------------------------------------------------------------


def count_pixels(raw: RawData, every: int) -> np.ndarray:
    """Pixels of each class in every k-th raw label (as stored, distorted); the last of the 39 has no class."""
    stage = Segmentation()
    width, height = Calibration.read(raw.calibration_path).resolution
    stage.prepare(stage.settings(argparse.Namespace(size=(width, height)), raw))
    counts = np.zeros(IGNORE + 1, np.int64)
    for content in _converted(raw, stage, raw.frames("label")[::every]):
        counts += np.bincount(content.ravel(), minlength=IGNORE + 1)
    return np.append(counts[: len(SEMANTIC_CLASSES)], counts[IGNORE])


def count_boxes(raw: RawData) -> list[dict[str, Any]]:
    """Every box of the set, unique and clipped, as in a processed label."""
    stage = Boxes()
    stage.prepare(stage.settings(argparse.Namespace(), raw))
    return [box for content in _converted(raw, stage, raw.frames("label3D")) for box in json.loads(content)["boxes"]]


def _converted(raw: RawData, stage: A2D2Stage, frames: list[Frame]) -> Iterable[Any]:
    for frame in progress(frames, len(frames), f"{stage.kind} statistics"):
        try:
            yield stage.convert(raw.path(stage.raw_kind, frame)).content
        except Exception as error:  # as above
            warn(f"left out: {raw.path(stage.raw_kind, frame)}: {reason_of(error)}")


def statistics_figure(raw: RawData, pixels: np.ndarray, boxes: list[dict[str, Any]], every: int) -> Figure:
    """Pixels and boxes by class, sizes of boxes, files by scene."""
    figure = Figure(figsize=(15, 17), layout="constrained")
    classes, sizes = figure.subplots(2, 2, width_ratios=[3, 2], height_ratios=[5, 3])
    _bars(
        classes[0],
        dict(zip([*SEMANTIC_CLASSES, "no class"], 100 * pixels / max(pixels.sum(), 1), strict=True)),
        [*(SEMANTIC_TABLE.palette()[: len(SEMANTIC_CLASSES)] / 255), (0, 0, 0)],
        f"pixels by class, % (every {every}th label)",
    )
    number = Counter(box["class"] for box in boxes)
    _bars(classes[1], {name: number[name] for name in BOX_CLASSES}, list(BOX_COLOURS), f"{len(boxes)} boxes by class")
    scenes = raw.scenes()
    for i, kind in enumerate(RAW_KINDS):
        places = np.arange(len(scenes)) + 0.2 * (i - 1.5)
        sizes[0].bar(places, [len(raw.frames(kind, [scene])) for scene in scenes], width=0.2, label=kind)
    sizes[0].set_xticks(range(len(scenes)), scenes, rotation=90)
    sizes[0].set(title="files by scene")
    sizes[0].legend(loc="lower left")
    edges = np.array([box["bbox"] for box in boxes] or np.zeros((0, 4)))
    sizes[1].scatter(edges[:, 2] - edges[:, 0], edges[:, 3] - edges[:, 1], s=4, alpha=0.3)
    sizes[1].set(title="sizes of boxes", xlabel="width, px", ylabel="height, px")
    return figure


def _bars(axes: Any, values: dict[str, float], colours: list[Any], title: str) -> None:
    """One bar a name, the first on top; rare ones are seen on the logarithmic axis, absent ones have no bar."""
    axes.barh(list(values), list(values.values()), color=colours, edgecolor="black", linewidth=0.3)
    axes.set(title=title, xscale="symlog")
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
