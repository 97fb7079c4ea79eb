"""The preprocessing steps of a data set in folders, one for each kind that a recipe may name."""

import json
import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from datasets.box_lists import clip, has_area, without_duplicates
from datasets.conversion import Label, Stage
from datasets.depth_maps import MAX_METRES, UNITS_PER_METRE, nearest_points
from datasets.files import read_bytes
from datasets.folders.colours import class_colours, rgb_number
from datasets.folders.found import Job
from datasets.folders.pictures import nearest, pixels_of, read_numbers, read_rgb, resized, size_of
from datasets.folders.recipe import Box, Depth, Image, Recipe, Segmentation, Steering
from datasets.frames import Frame
from datasets.images import read_png
from datasets.spec import IGNORE, LARGEST_ANGLE
from strict import checked

UNKNOWN = -1  # a mask's number that means neither a class nor none
DESCRIPTION = {"classes", "range"}  # keys of a section that stand in the settings by themselves
MAPS: dict[str, type[Segmentation] | type[Depth]] = {"segmentation": Segmentation, "depth": Depth}


@dataclass
class KindSource:
    """The labels of one kind. Workers get their jobs one by one, so the lists stay behind in this process."""

    root: Path
    jobs: list[Job] = field(default_factory=list)
    times: dict[Frame, float] = field(default_factory=dict)
    resolution: tuple[int, int] = (0, 0)
    """W, H of the original images, the commonest."""

    def __reduce__(self) -> tuple[type, tuple[Path]]:
        return type(self), (self.root,)


class FolderStage(Stage[KindSource]):
    """A kind of label as a recipe's section describes it."""

    advice = "see the recipe's patterns and --data-root"

    def __init__(self, section: Any):
        self.section = section

    @abstractmethod
    def settings(self, size: tuple[int, int], source: KindSource) -> dict[str, Any]:
        """Everything that decides what the files contain, for settings.json (JSON types only)."""

    @abstractmethod
    def convert(self, job: Job) -> Label:
        """The label of a frame. Any exception means: its file is bad."""

    def searched(self, source: KindSource) -> Path:
        return source.root

    def jobs(self, source: KindSource) -> list[Job]:
        return source.jobs

    def labels(self, source: KindSource, job: Job) -> Iterator[tuple[Frame, Path, Callable[[], Label]]]:
        yield job.frame, job.path, lambda: self.convert(job)

    def recipe(self) -> dict[str, Any]:
        """The section as JSON, without what the settings say by themselves."""
        return json.loads(self.section.model_dump_json(exclude=DESCRIPTION, exclude_none=True))


class CameraStage(FolderStage):
    kind = "camera"
    describing = frozenset({"resolution"})
    section: Image

    def settings(self, size: tuple[int, int], source: KindSource) -> dict[str, Any]:
        resolution = list(source.resolution)
        return {"size": list(size), "format": "npy", "resolution": resolution, "recipe": self.recipe()}

    def prepare(self, settings: dict[str, Any]) -> None:
        self.size = tuple(settings["size"])

    def suffix(self, settings: dict[str, Any]) -> str:
        return ".npy"

    def times(self, source: KindSource) -> dict[Frame, float]:
        return source.times

    def convert(self, job: Job) -> Label:
        return Label(resized(read_rgb(job.path, self.section.white), self.size))


class SegmentationStage(FolderStage):
    """Prepared with size None, its labels have the sizes of their own files."""

    kind = "segmentation"
    describing = frozenset({"colours"})
    section: Segmentation

    def settings(self, size: tuple[int, int], source: KindSource) -> dict[str, Any]:
        names = self.section.names()
        colours = class_colours(self.section.classes, self.section.colour_table)
        return {"size": list(size), "classes": names, "colours": colours, "recipe": self.recipe()}

    def prepare(self, settings: dict[str, Any]) -> None:
        self.size = settings["size"]
        self.class_of = class_of_number(self.section)
        self.otherwise = IGNORE if self.section.no_class == "rest" else UNKNOWN
        size = 1 << 24 if self.section.colour_table else 1 << 16
        self.table = np.full(size, self.otherwise, np.int16)
        for number, index in self.class_of.items():
            if 0 <= number < size:
                self.table[number] = index

    def convert(self, job: Job) -> Label:
        numbers = self._numbers(job.path)
        classes = self._classes(numbers)
        if (unknown := classes == UNKNOWN).any():
            first = int(numbers[unknown][0])
            shown = f"colour #{first:06x}" if self.section.colour_table else f"number {first}"
            raise ValueError(f"{shown} ({np.count_nonzero(unknown)} pixels) is no class of the recipe and not no_class")
        label = nearest(classes.astype(np.uint8), self.size or classes.shape[::-1])
        return Label(label, {"pixels_without_class": int(np.count_nonzero(label == IGNORE))})

    def _numbers(self, path: Path) -> np.ndarray:
        """H x W of whole numbers; a colour as R << 16 | G << 8 | B."""
        if self.section.colour_table:
            red, green, blue = np.moveaxis(read_png(path).astype(np.int32), -1, 0)
            return red << 16 | green << 8 | blue
        numbers = read_numbers(path)
        if numbers.dtype.kind == "f":
            if not np.isfinite(numbers).all() or (numbers != np.rint(numbers)).any():
                raise ValueError("a mask of numbers that are not whole")
            numbers = numbers.astype(np.int64)
        return numbers.astype(np.uint8) if numbers.dtype == bool else numbers

    def _classes(self, numbers: np.ndarray) -> np.ndarray:
        """The class of each pixel, IGNORE or UNKNOWN."""
        if numbers.min() >= 0 and numbers.max() < len(self.table):
            return self.table.take(numbers)
        found, places = np.unique(numbers, return_inverse=True)
        classes = np.array([self.class_of.get(int(number), self.otherwise) for number in found], np.int16)
        return classes[places].reshape(numbers.shape)


def class_of_number(section: Segmentation) -> dict[int, int]:
    """A mask's number (or colour, as a number) -> class, IGNORE for those of no class."""
    if section.colour_table is None:
        classes = section.class_of_id()
    else:
        names = section.names()
        classes = {rgb_number(colour): names.index(name) for colour, name in section.colour_table.items()}
    if section.no_class == "rest":
        return classes
    without = (rgb_number(value) if isinstance(value, str) else value for value in section.no_class)
    return dict.fromkeys(without, IGNORE) | classes


class DepthStage(FolderStage):
    """Prepared with size None, its labels have the sizes of their own files."""

    kind = "depth"
    describing = frozenset({"range"})
    section: Depth

    def settings(self, size: tuple[int, int], source: KindSource) -> dict[str, Any]:
        return {"size": list(size), "range": [float(bound) for bound in self.section.range], "recipe": self.recipe()}

    def prepare(self, settings: dict[str, Any]) -> None:
        self.size = settings["size"]

    def convert(self, job: Job) -> Label:
        values = read_numbers(job.path)
        size = self.size or values.shape[::-1]
        if not self.section.sparse:
            values = nearest(values, size)
        metres = metres_of(values, self.section)
        measured = ~np.isnan(metres)
        near, far = metres * UNITS_PER_METRE >= 0.5, metres > MAX_METRES
        counts = {
            "pixels_too_far": int(np.count_nonzero(measured & far)),
            "pixels_not_in_front": int(np.count_nonzero(measured & ~near)),
        }
        rows, columns = np.nonzero(near & ~far)
        if len(rows) == 0:
            return Label(None, counts)
        height, width = values.shape
        x, y = pixels_of(columns, width, size[0]), pixels_of(rows, height, size[1])
        return Label(nearest_points(x, y, metres[rows, columns], size), counts)


def metres_of(values: np.ndarray, section: Depth) -> np.ndarray:
    """A file's values -> metres, float64; NaN where nothing was measured, infinite for a disparity of 0."""
    numbers = values.astype(np.float64)
    measured = np.isfinite(numbers)
    if section.invalid is not None:
        measured &= values != section.invalid
    numbers[~measured] = np.nan
    if section.disparity is None:
        return numbers / (section.units_per_metre or 1.0)
    disparity = (numbers - section.disparity.offset) / section.disparity.scale
    with np.errstate(divide="ignore"):
        return section.disparity.baseline * section.disparity.focal / disparity


class BoxStage(FolderStage):
    kind = "box"
    describing = frozenset({"colours"})
    section: Box

    def settings(self, size: tuple[int, int], source: KindSource) -> dict[str, Any]:
        # boxes stay in pixels of the original image: the size has no part in them
        return {
            "classes": self.section.names(),
            "colours": class_colours(self.section.classes),
            "recipe": self.recipe(),
        }

    def prepare(self, settings: dict[str, Any]) -> None:
        self.names = {name: name for name in self.section.names()}
        if self.section.format == "yolo":
            self.names = {str(place): name for place, name in enumerate(self.section.names())}
        self.names |= {str(name): ours for name, ours in self.section.rename.items()}
        self.ignored = {str(name) for name in self.section.ignore}

    def convert(self, job: Job) -> Label:
        size = size_of(job.image)
        all_boxes = list(self._boxes(job, size))
        boxes = [{"class": self._class(name), "bbox": bbox} for name, bbox in all_boxes if name not in self.ignored]
        unique = without_duplicates(boxes)
        clipped = [{**box, "bbox": clip(box["bbox"], *size)} for box in unique]
        kept = [box for box in clipped if has_area(box["bbox"])]
        counts = {
            "boxes": len(kept),
            "boxes_ignored": len(all_boxes) - len(boxes),
            "duplicates_removed": len(boxes) - len(unique),
            "outside_or_degenerate_removed": len(unique) - len(kept),
        }
        return Label(json.dumps({"size": list(size), "boxes": kept}).encode(), counts)

    def _boxes(self, job: Job, size: tuple[int, int]) -> Iterator[tuple[str, list[float]]]:
        """The file's boxes: its name of the class, and left, top, right, bottom in pixels."""
        if self.section.format == "coco":
            for name, bbox in job.entries:
                left, top, width, height = finite(bbox, 4)
                yield name, [left, top, left + width, top + height]
            return
        for line in read_bytes(job.path).decode().splitlines():
            if words := line.split():
                yield kitti_box(words) if self.section.format == "kitti" else yolo_box(words, size)

    def _class(self, name: str) -> str:
        if name not in self.names:
            raise ValueError(f"class {name!r} is not in the recipe's classes, rename or ignore")
        return self.names[name]


def kitti_box(words: list[str]) -> tuple[str, list[float]]:
    """A line of KITTI's label files: type, truncated, occluded, alpha, left, top, right, bottom, ..."""
    if len(words) < 15:
        raise ValueError(f"a line of {len(words)} words; KITTI's labels have 15")
    return words[0], finite(words[4:8], 4)


def yolo_box(words: list[str], size: tuple[int, int]) -> tuple[str, list[float]]:
    """A line of YOLO's label files: number of the class, then centre x, centre y, width, height as fractions."""
    x, y, width, height = finite(words[1:], 4)
    left, right, top, bottom = x - width / 2, x + width / 2, y - height / 2, y + height / 2
    return words[0], [left * size[0], top * size[1], right * size[0], bottom * size[1]]


def finite(values: Any, count: int) -> list[float]:
    """So many finite numbers. ValueError: they are not."""
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise ValueError(f"a box of {values!r}, not {count} finite numbers")
    return numbers


class SteeringStage(FolderStage):
    kind = "steering"
    describing = frozenset({"unit"})
    section: Steering

    def settings(self, size: tuple[int, int], source: KindSource) -> dict[str, Any]:
        return {"unit": "deg", "recipe": self.recipe()}

    def convert(self, job: Job) -> Label:
        if len(job.entries) != 1:
            raise ValueError(f"{len(job.entries)} rows of frame {job.frame.in_dataset}")
        (cell,) = job.entries
        if not cell:
            return Label(None)
        angle = float(cell) * self.section.factor + 0.0  # no negative zero
        if not abs(angle) <= LARGEST_ANGLE:  # NaN as well
            raise ValueError(f"the angle {cell!r} is {angle:g} degrees; at most {LARGEST_ANGLE:g} are possible")
        return Label(json.dumps({"unit": "deg", "angles": [angle]}).encode(), {"angles": 1})


def map_stage(kind: str, settings: Mapping[str, Any], size: tuple[int, int] | None) -> FolderStage:
    """The step that made a kind's maps, from their settings, prepared for another size. ValueError: no such settings.

    size: None: each map keeps that of its own file.
    """
    content = {**settings["recipe"], **{key: settings[key] for key in DESCRIPTION & settings.keys()}}
    if content.get("no_class") == [IGNORE]:  # the default, which colour masks may leave as it is but not name
        del content["no_class"]
    if "ids" in content:  # JSON's keys are texts
        content["ids"] = {int(number): name for number, name in content["ids"].items()}
    stage = STAGES[kind](checked(MAPS[kind], content))
    stage.prepare({**settings, "size": size})
    return stage


STAGES: dict[str, type[FolderStage]] = {
    stage.kind: stage for stage in (CameraStage, SegmentationStage, DepthStage, BoxStage, SteeringStage)
}


def stages_of(recipe: Recipe) -> dict[str, FolderStage]:
    """The steps that a recipe asks for, images first."""
    sections = {kind: recipe.image if kind == "camera" else getattr(recipe, kind) for kind in recipe.kinds()}
    return {kind: STAGES[kind](section) for kind, section in sections.items()}
