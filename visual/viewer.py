"""What visualize.py shows: frames with their labels and networks' predictions, as cells of sheets."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from datasets.a2d2.geometry import ImageMap
from datasets.a2d2.raw import RawData, parse_bus_frame_name
from datasets.camera import Camera, check_processed
from datasets.frames import Frame
from datasets.images import read_png
from datasets.processed import ProcessedData
from errors import UserError, reason_of
from tasks import TASKS
from tasks.base import DrawOptions, Target, Task
from tasks.drawing import blank
from training.restore import Restored
from training.tables import number
from visual.sheet import Cell, sheet

CAMERA, TRUTH = "camera", "truth"
RESERVED = (CAMERA, TRUTH, "sheet")  # names of files beside the networks' pictures
SHEET_WIDTH, PICTURE_WIDTH = 480, 960  # px: of a sheet's cells, and of pictures of their own


@dataclass(frozen=True)
class View:
    """One frame, or a picture from elsewhere, with all that is to be drawn over it."""

    image: np.ndarray  # what people look at: undistorted, in the camera's aspect ratio
    targets: dict[str, Target | None]  # task -> its label, B = 1
    predictions: dict[str, dict[str, Any]]  # network -> task -> prediction, B = 1

    def cells(self, task: Task, options: DrawOptions, width: int) -> list[Cell]:
        """The camera, the truth (unless the picture has no labels at all) and each network's prediction."""
        image, target = _of_width(self.image, width), self.targets.get(task.name)
        empty = blank(image, task.strip_lines)
        cells = [Cell(image)]
        if self.targets:
            cells.append(Cell(empty, "no label") if target is None else Cell(task.draw(image, None, target, options)))
        for predictions in self.predictions.values():
            prediction = predictions.get(task.name)
            if prediction is None:
                cells.append(Cell(empty, f"not trained for {task.name}"))
            else:
                cells.append(Cell(task.draw(image, prediction, target, options), _score(task, prediction, target)))
        return cells

    def sheet(self, tasks: Mapping[str, Task], options: DrawOptions) -> np.ndarray:
        """All cells side by side."""
        return sheet(self.columns(), {name: self.cells(task, options, SHEET_WIDTH) for name, task in tasks.items()})

    def columns(self) -> list[str]:
        return [CAMERA, *([TRUTH] if self.targets else []), *self.predictions]


class Viewer:
    """Frames of a data set, labels and networks, for some tasks."""

    def __init__(
        self, raw: RawData, processed: ProcessedData, networks: Mapping[str, Restored], task: str | None = None
    ):
        """task: only this one; None: all. UserError where a network lacks it or had labels of another size."""
        self.raw, self.processed, self.networks = raw, processed, networks
        self.tasks: dict[str, Task] = {}
        for name in TASKS if task is None else [task]:
            trained = [network.tasks[name] for network in networks.values() if name in network.tasks]
            self.tasks[name] = trained[0] if trained else TASKS[name]()
        for label, network in networks.items():
            if task and task not in network.tasks:
                raise UserError(f"--checkpoint {label}={network.path} has no {task}; it has {', '.join(network.tasks)}")
            there = [name for name in self._asked_of(network) if processed.settings(name) is not None]
            check_processed(processed, network.camera, there)

    @cached_property
    def _camera(self) -> Camera:
        """Images of the size in which they were preprocessed, for frames whose raw file is not here."""
        settings = self.processed.settings("camera")
        return Camera(self.raw, self.processed, tuple(settings["size"]) if settings else (PICTURE_WIDTH, PICTURE_WIDTH))

    @cached_property
    def _map(self) -> ImageMap:
        return ImageMap(self._camera.calibration, self._size)

    @property
    def _size(self) -> tuple[int, int]:
        width, height = self._camera.calibration.resolution
        return PICTURE_WIDTH, round(PICTURE_WIDTH * height / width)

    def frames(self) -> list[Frame]:
        """All that have an image, sorted."""
        return self._camera.frames()

    def choose(self, sample: str, numbered: Callable[[], Sequence[Frame]]) -> Frame:
        """A frame by its place among those that `numbered` gives, or by its name. UserError says what there is."""
        if re.fullmatch(r"\d{1,8}", sample):
            frames = numbered()
            if int(sample) >= len(frames):
                raise UserError(f"--sample {sample}: there are {len(frames)} frames to choose from, numbered from 0")
            return frames[int(sample)]
        known = self.frames()
        names = {name: frame for frame in known for name in names_of(frame)}
        if (frame := names.get(sample) or parse_bus_frame_name(sample)) not in known:
            such_as = (
                f", such as {known[0].in_dataset}" if known else f" below {self.raw.root} and {self.processed.root}"
            )
            raise UserError(f"--sample {sample}: no such frame; there are {len(known)}{such_as}")
        return frame

    def scene(self, name: str) -> list[Frame]:
        """A scene's frames. UserError lists the scenes there are."""
        frames = self.frames()
        chosen = [frame for frame in frames if frame.scene == name]
        if not chosen:
            scenes = dict.fromkeys(frame.scene for frame in frames)
            raise UserError(f"--scene {name}: no such scene; there are {', '.join(scenes) or 'none'}")
        return chosen

    def view(self, frame: Frame) -> View:
        """UserError where a file can't be read."""
        try:
            targets = {name: self._target(task, frame) for name, task in self.tasks.items()}
            predictions = {
                label: network.predict(network.camera.read(frame), self._asked_of(network))
                for label, network in self.networks.items()
            }
            return View(self._image(frame), targets, predictions)
        except (ValueError, OSError) as error:
            raise UserError(f"{frame}: {reason_of(error)}") from None

    def view_picture(self, path: Path) -> View:
        """Any picture, without truth; each network sees it resized to its own size."""
        picture = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB) if path.is_file() else None
        if picture is None:
            raise UserError(f"--image {path} is not a picture that OpenCV can read")
        predictions = {
            label: network.predict(
                cv2.resize(picture, tuple(network.data.size), interpolation=cv2.INTER_AREA), self._asked_of(network)
            )
            for label, network in self.networks.items()
        }
        return View(_of_width(picture, PICTURE_WIDTH), {}, predictions)

    def _asked_of(self, network: Restored) -> list[str]:
        return [name for name in self.tasks if name in network.tasks]

    def _target(self, task: Task, frame: Frame) -> Target | None:
        label = task.read(self.processed, frame)
        return None if label is None else task.collate([label])

    def _image(self, frame: Frame) -> np.ndarray:
        path = self.raw.path("camera", frame)
        if path.is_file():
            return self._map.image(read_png(path))
        return cv2.resize(self._camera.read(frame), self._size, interpolation=cv2.INTER_CUBIC)


def names_of(frame: Frame) -> tuple[str, ...]:
    """As people may write it."""
    return str(frame), frame.in_dataset, f"{frame.scene}_{frame.id}"


def _of_width(image: np.ndarray, width: int) -> np.ndarray:
    height = round(image.shape[0] * width / image.shape[1])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def _score(task: Task, prediction: Any, target: Target | None) -> str:
    """The task's metric on this frame alone."""
    if target is None:
        return ""
    metric = task.metric()
    metric.update(_on_cpu(prediction), target)
    return f"{task.best_metric_title} {number(metric.compute()[task.best_metric])}"


def _on_cpu(prediction: Any) -> Any:
    if isinstance(prediction, torch.Tensor):
        return prediction.cpu()
    return [{key: value.cpu() for key, value in image.items()} for image in prediction]
