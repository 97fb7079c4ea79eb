"""What visualize.py shows: frames with their labels and networks' predictions, as cells of sheets."""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch

from datasets.a2d2.raw import RawData
from datasets.folders.pictures import read_rgb
from datasets.frames import Frame
from datasets.processed import CAMERA as CAMERA_KIND
from datasets.processed import ProcessedData
from datasets.roots import Root, Roots
from datasets.spec import SPLITS
from datasets.splits import Split
from errors import UserError, reason_of
from tasks import TASKS
from tasks.base import Target, Task
from visual.page import Page
from visual.pictures import picture_of
from visual.pictures.base import DrawOptions
from visual.sheet import Block, Cell, Layout, cell_width, laid_out

if TYPE_CHECKING:  # brings all networks: only where there are some
    from training.restore import Restored

CAMERA, TRUTH = "camera", "truth"
RESERVED = (CAMERA, TRUTH, "sheet")  # names of files beside the networks' pictures
PICTURE_WIDTH = 960  # px, where nothing else is asked for
NARROWEST = 20  # times as long as wide may a picture be
NO_SPLIT = "frame of no split"
SPLIT_NAMES = {"train": "training", "val": "validation", "test": "test"}


@dataclass(frozen=True)
class View:
    """One frame, or a picture from elsewhere, with all that is to be drawn over it."""

    image: np.ndarray  # what people look at: undistorted, in the camera's aspect ratio
    tasks: dict[str, Task]
    targets: dict[str, Target | None]  # task -> its label, B = 1
    predictions: dict[str, dict[str, Any]]  # network -> task -> prediction, B = 1
    name: str = ""  # of the frame
    split: str = ""  # that the frame is of, in words

    def cells(self, task: Task, options: DrawOptions, width: int) -> list[Cell]:
        """The camera, the truth (unless the picture has no labels at all) and each network's prediction."""
        image, target = _of_width(self.image, width), self.targets.get(task.name)
        picture = picture_of(task)
        empty = picture.blank(image, options)
        cells = [Cell(image, CAMERA)]
        if self.targets:
            truth = None if target is None else picture.draw(image, None, target, options)
            cells.append(Cell(empty, f"{TRUTH}: no label") if truth is None else Cell(truth, TRUTH))
        shows_errors = picture.errors if options.errors and target is not None else None
        for network, predictions in self.predictions.items():
            prediction = predictions.get(task.name)
            if prediction is None:
                cells.append(Cell(empty, f"{network}: not trained"))
            else:
                drawn = picture.draw(image, prediction, target, options)
                told = [shows_errors, self.scores[network, task.name]]
                cells.append(Cell(drawn, ": ".join([network, *([", ".join(filter(None, told))] if any(told) else [])])))
        return cells

    @cached_property
    def scores(self) -> dict[tuple[str, str], str]:
        """Network and task -> the metric on this frame, where both have the task: once, however often it is drawn."""
        return {
            (network, name): _score(task, prediction, self.targets.get(name))
            for network, predictions in self.predictions.items()
            for name, task in self.tasks.items()
            if (prediction := predictions.get(name)) is not None
        }

    def block(self, options: DrawOptions, page: Page) -> Block:
        """All that there is of it, for a sheet: the camera once; a row a task, or if long several."""
        columns = page.columns or self.natural_columns()
        width = cell_width(page.width, columns)
        by_task = {name: _beside_camera(task, self.cells(task, options, width)) for name, task in self.tasks.items()}
        camera = next(iter(by_task.values()))[:1]
        if len(by_task) == 1:
            ((name, cells),) = by_task.items()
            return Block(f"{self.heading}: {name}", list(_chunks(cells, columns)))
        rows = [[Cell(c.picture, f"{name}, {c.caption}") for c in cells[1:]] for name, cells in by_task.items()]
        if len(rows[0]) == 1:
            return Block(self.heading, list(_chunks([*camera, *(cell for (cell,) in rows)], columns)))
        return Block(self.heading, [part for row in [camera, *rows] for part in _chunks(row, columns)])

    def sheet(self, options: DrawOptions, page: Page) -> Layout:
        """Of this frame alone."""
        return laid_out([self.block(options, page)], page.width, page.letters)

    def natural_columns(self) -> int:
        """The pictures of one task; where each has only one, a few tasks side by side."""
        each = len(self.columns()) - 1
        if len(self.tasks) == 1:
            return each + 1
        return each if each > 1 else min(3, len(self.tasks) + 1)

    @property
    def heading(self) -> str:
        return f"{self.name}, {self.split}" if self.split else self.name

    def columns(self) -> list[str]:
        return [CAMERA, *([TRUTH] if self.targets else []), *self.predictions]


class Splits:
    """Which split a frame is of."""

    def __init__(self, split: Split | None):
        """None: there is no split, and nothing to say."""
        self.split = split
        self.frames = {} if split is None else {name: frozenset(split.of(name)) for name in SPLITS}

    def of(self, frame: Frame) -> str:
        """In words: 'validation frame'."""
        if self.split is None:
            return ""
        names = [SPLIT_NAMES[name] for name, frames in self.frames.items() if frame in frames]
        return f"{' and '.join(names)} frame" if names else NO_SPLIT


class Viewer:
    """Frames of data sets, labels and networks, for some tasks."""

    def __init__(
        self,
        raw: RawData,
        processed: Sequence[ProcessedData],
        networks: "Mapping[str, Restored]",
        task: str | None = None,
        width: int = PICTURE_WIDTH,
    ):
        """task: only this one; None: all. width: px of the images. UserError where a network lacks the task or had
        labels of another size."""
        self.networks, self.task, self.width = networks, task, width
        self.splits = Splits(next((network.split for network in networks.values()), None))
        source = raw if len(processed) == 1 else None
        self.roots = Roots([Root.open(source, root, _size_of(root)) for root in processed])
        self.where = ", ".join(map(str, [raw.root, *(root.root for root in processed)]))
        for label, network in networks.items():
            if task and task not in network.tasks:
                raise UserError(f"--checkpoint {label}={network.path} has no {task}; it has {', '.join(network.tasks)}")
            network.check_labels(
                name
                for name in self.asked_of(network)
                if all(network.roots[root].processed.settings(network.tasks[name].kind) for root in network.bound[name])
            )

    def tasks_of(self, dataset: str | None) -> dict[str, Task]:
        """What is drawn of a data set's frames: the networks' tasks, and its kinds of label that none of them has.

        UserError: --task names none of them. dataset: None for a picture from elsewhere.
        """
        trained = {name: task for network in self.networks.values() for name, task in network.tasks.items()}
        covered = {task.kind for task in trained.values()}
        processed = None if dataset is None else self.roots[dataset].processed
        others = {
            kind: task(spec=processed.label_spec(kind))
            for kind, task in TASKS.items()
            if kind not in covered and processed and processed.settings(kind) is not None
        }
        found = in_order({**trained, **others})
        if self.task is not None and self.task not in found:
            raise UserError(f"--task {self.task}: {dataset} has no such labels; it has {', '.join(found) or 'none'}")
        return found if self.task is None else {self.task: found[self.task]}

    def seconds(self, frames: Sequence[Frame]) -> dict[Frame, float]:
        """The time of each of a scene's frames; their places where the data set says nothing of times."""
        known = self.roots[frames[0].dataset].seconds(frames)
        return {frame: known.get(frame, float(place)) for place, frame in enumerate(frames)}

    def frames(self) -> list[Frame]:
        """All that have an image, sorted."""
        return self.roots.frames()

    def choose(self, sample: str, numbered: Callable[[], Sequence[Frame]]) -> Frame:
        """A frame by its place among those that `numbered` gives, or by its name. UserError says what there is."""
        if re.fullmatch(r"\d{1,8}", sample):
            frames = numbered()
            if int(sample) >= len(frames):
                raise UserError(f"--sample {sample}: there are {len(frames)} frames to choose from, numbered from 0")
            return frames[int(sample)]
        known, raw = self.frames(), self._of_raw_file(sample)
        found = [frame for frame in known if frame == raw or sample in names_of(frame)]
        if not found:
            such_as = f", such as {self.name_of(known[0])}" if known else f" below {self.where}"
            raise UserError(f"--sample {sample}: no such frame; there are {len(known)}{such_as}")
        if len(found) > 1:
            raise UserError(f"--sample {sample}: there are {' and '.join(map(str, found))}; name one of them so")
        return found[0]

    def scene(self, name: str) -> list[Frame]:
        """A scene's frames, by its name or DATASET/SCENE. UserError lists the scenes there are."""
        by_scene: dict[str, list[Frame]] = {}
        for frame in self.frames():
            by_scene.setdefault(f"{frame.dataset}/{frame.scene}", []).append(frame)
        found = [scene for scene in by_scene if name in (scene, scene.partition("/")[2])]
        if not found:
            scenes = [self.scene_of(frames[0]) for frames in by_scene.values()]
            raise UserError(f"--scene {name}: no such scene; there are {', '.join(scenes) or 'none'}")
        if len(found) > 1:
            raise UserError(f"--scene {name}: there are {' and '.join(found)}; name one of them so")
        return by_scene[found[0]]

    def name_of(self, frame: Frame) -> str:
        """SCENE/ID, of several data sets DATASET/SCENE/ID."""
        return frame.in_dataset if len(self.roots) == 1 else str(frame)

    def scene_of(self, frame: Frame) -> str:
        """SCENE, of several data sets DATASET/SCENE."""
        return self.name_of(frame).rpartition("/")[0]

    def view(self, frame: Frame) -> View:
        """UserError where a file can't be read."""
        try:
            tasks = self.tasks_of(frame.dataset)
            targets = {name: self._target(task, frame) for name, task in tasks.items()}
            predictions = {
                label: network.predict(network.roots[frame.dataset].read(frame), self.asked_of(network))
                for label, network in self.networks.items()
            }
            split = self.splits.of(frame)
            return View(self._image(frame), tasks, targets, predictions, self.name_of(frame), split)
        except (ValueError, OSError) as error:
            raise UserError(f"{frame}: {reason_of(error)}") from None

    def view_picture(self, path: Path) -> View:
        """Any picture, without truth; each network sees it resized to its own size."""
        try:
            picture = read_rgb(path, white=255)
        except (ValueError, OSError) as error:
            raise UserError(f"--image {path} is not a picture that can be read: {reason_of(error)}") from None
        height, width = picture.shape[:2]
        if max(height, width) > NARROWEST * min(height, width):
            raise UserError(
                f"--image {path} has {width} x {height} pixels; one side may be {NARROWEST} times the other"
            )
        predictions = {
            label: network.predict(
                cv2.resize(picture, network.config.data.image_size, interpolation=cv2.INTER_AREA),
                self.asked_of(network),
            )
            for label, network in self.networks.items()
        }
        split = "a picture from elsewhere, of no split"
        return View(_of_width(picture, self.width), self.tasks_of(None), {}, predictions, path.name, split)

    def _of_raw_file(self, name: str) -> Frame | None:
        """The frame that the name of a raw file means."""
        found = (root.raw.frame_named(name) for root in self.roots.values() if root.raw)
        return next(found, None)

    def asked_of(self, network: "Restored") -> list[str]:
        """Those of its tasks that are shown."""
        return [name for name in network.tasks if self.task in (None, name)]

    def _target(self, task: Task, frame: Frame) -> Target | None:
        """None where the frame has no label, or one of a data set that the task is not bound to."""
        bound = [network.bound[task.name] for network in self.networks.values() if task.name in network.bound]
        if bound and not any(frame.dataset in names for names in bound):
            return None
        label = task.read(self.roots[frame.dataset].processed, frame)
        return None if label is None else task.collate([label])

    def _image(self, frame: Frame) -> np.ndarray:
        root = self.roots[frame.dataset]
        size = self.width, round(self.width / root.aspect)
        large = root.raw.read_large(frame, size) if root.raw else None
        return cv2.resize(root.read(frame), size, interpolation=cv2.INTER_CUBIC) if large is None else large


def _size_of(processed: ProcessedData) -> tuple[int, int]:
    """Of the images as they were preprocessed."""
    settings = processed.settings(CAMERA_KIND)
    return tuple(settings["size"]) if settings else (PICTURE_WIDTH, PICTURE_WIDTH)


def names_of(frame: Frame) -> tuple[str, ...]:
    """As people may write it."""
    return str(frame), frame.in_dataset, f"{frame.scene}_{frame.id}"


def in_order(tasks: Mapping[str, Task]) -> dict[str, Task]:
    """By kind, as in TASKS."""
    order = list(TASKS)
    return dict(sorted(tasks.items(), key=lambda item: (order.index(item[1].kind), item[0])))


def _of_width(image: np.ndarray, width: int) -> np.ndarray:
    height = round(image.shape[0] * width / image.shape[1])
    how = cv2.INTER_AREA if width < image.shape[1] else cv2.INTER_CUBIC
    return cv2.resize(image, (width, height), interpolation=how)


def _beside_camera(task: Task, cells: list[Cell]) -> list[Cell]:
    """A task's cells, the camera first, without the image where nothing is drawn on it."""
    if picture_of(task).on_image:
        return cells
    height = cells[0].picture.shape[0]
    return [cells[0], *(Cell(cell.picture[height:], cell.caption) for cell in cells[1:])]


def _chunks(cells: Sequence[Cell], columns: int) -> Iterator[Sequence[Cell]]:
    for start in range(0, len(cells), columns):
        yield cells[start : start + columns]


def _score(task: Task, prediction: Any, target: Target | None) -> str:
    """The task's metric on this frame alone, where it is a number."""
    if target is None:
        return ""
    metric = task.metric()
    metric.update(_on_cpu(prediction), target)
    value, written = metric.compute()[task.best_metric], task.deciding()
    return "" if math.isnan(value) else f"{written.title} {written.with_unit(value)}"


def _on_cpu(prediction: Any) -> Any:
    if isinstance(prediction, torch.Tensor):
        return prediction.cpu()
    if isinstance(prediction, Mapping):
        return {key: _on_cpu(value) for key, value in prediction.items()}
    return [_on_cpu(value) for value in prediction]
